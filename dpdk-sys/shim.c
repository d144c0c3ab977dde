/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * DPDK's static inline functions as symbols, and the proof that struct rte_mbuf looks as src/dpdk/raw.rs says.
 */
#include "shim.h"

#include <stddef.h>

#define AT(field, offset) \
	_Static_assert(offsetof(struct rte_mbuf, field) == (offset), "rte_mbuf." #field " is elsewhere: see src/dpdk/raw.rs")
#define WIDE(field, bytes) \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == (bytes), "rte_mbuf." #field " has another size: see src/dpdk/raw.rs")

_Static_assert(sizeof(struct rte_mbuf) == 128, "HEADER in src/dpdk/raw.rs");
_Static_assert(_Alignof(struct rte_mbuf) == 64, "alignment of Header in src/dpdk/raw.rs");
_Static_assert(RTE_PKTMBUF_HEADROOM == 128, "HEADROOM in src/dpdk/raw.rs");
_Static_assert(sizeof(void *) == 8, "64-bit only");

AT(buf_addr, 0);        WIDE(buf_addr, 8);
/* Bytes 8 to 16 (buf_iova) have no name of their own in every build; nobody here reads them. */
AT(data_off, 16);       WIDE(data_off, 2);
AT(refcnt, 18);         WIDE(refcnt, 2);
AT(nb_segs, 20);        WIDE(nb_segs, 2);
AT(port, 22);           WIDE(port, 2);
AT(ol_flags, 24);       WIDE(ol_flags, 8);
AT(packet_type, 32);    WIDE(packet_type, 4);
AT(pkt_len, 36);        WIDE(pkt_len, 4);
AT(data_len, 40);       WIDE(data_len, 2);
AT(vlan_tci, 42);       WIDE(vlan_tci, 2);
AT(hash.rss, 44);       WIDE(hash.rss, 4);
AT(vlan_tci_outer, 52); WIDE(vlan_tci_outer, 2);
AT(buf_len, 54);        WIDE(buf_len, 2);
AT(pool, 56);           WIDE(pool, 8);
/* In a DPDK built without IOVA in the mbuf, `next` is in the first cache line: refused here. */
AT(next, 64);           WIDE(next, 8);
AT(tx_offload, 72);     WIDE(tx_offload, 8);

_Static_assert(RTE_MBUF_F_RX_RSS_HASH == 1ULL << 1, "RX_RSS_HASH in src/dpdk/raw.rs");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_BAD == 1ULL << 3, "RX_L4_CKSUM_BAD in src/dpdk/raw.rs");
_Static_assert(RTE_MBUF_F_RX_IP_CKSUM_BAD == 1ULL << 4, "RX_IP_CKSUM_BAD in src/dpdk/raw.rs");
_Static_assert(RTE_MBUF_F_RX_IP_CKSUM_GOOD == 1ULL << 7, "RX_IP_CKSUM_GOOD in src/dpdk/raw.rs");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_GOOD == 1ULL << 8, "RX_L4_CKSUM_GOOD in src/dpdk/raw.rs");

/* A pointer to a pool has its lowest bit free: SOFT in src/dpdk/raw.rs. */
_Static_assert(_Alignof(struct rte_mempool) >= 2, "SOFT in src/dpdk/raw.rs");

uint16_t sg_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, frames, count);
}

uint16_t sg_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, frames, count);
}

struct rte_mbuf *sg_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void sg_pktmbuf_free(struct rte_mbuf *frame)
{
	rte_pktmbuf_free(frame);
}

int sg_errno(void)
{
	return rte_errno;
}

unsigned int sg_lcore_id(void)
{
	return rte_lcore_id();
}

unsigned int sg_mempool_size(const struct rte_mempool *pool)
{
	return pool->size;
}

uint16_t sg_pktmbuf_data_room(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

unsigned int sg_ring_dequeue(struct rte_ring *ring, void **objects, unsigned int count)
{
	return rte_ring_dequeue_burst(ring, objects, count, NULL);
}

int sg_link(uint16_t port, uint32_t *speed)
{
	struct rte_eth_link link;
	int code = rte_eth_link_get_nowait(port, &link);

	if (code < 0)
		return code;
	*speed = link.link_speed;
	return link.link_status == RTE_ETH_LINK_UP;
}
