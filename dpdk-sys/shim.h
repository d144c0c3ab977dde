/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What bindgen reads: DPDK's headers, the shim's functions, and constants that bindgen cannot see because DPDK
 * defines them by macros with casts (RTE_BIT64).
 */
#ifndef SLUICEGATE_SHIM_H
#define SLUICEGATE_SHIM_H

#include <stdint.h>
#include <stdbool.h>

#include <rte_timer.h>
#include <rte_version.h>
#include <rte_errno.h>
#include <rte_eal.h>
#include <rte_log.h>
#include <rte_lcore.h>
#include <rte_launch.h>
#include <rte_cycles.h>
#include <rte_malloc.h>
#include <rte_dev.h>
#include <rte_mempool.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_ring.h>
#include <rte_ether.h>
#include <rte_ethdev.h>
#include <rte_eth_ring.h>
#include <rte_acl.h>
#include <rte_fib.h>

/* Once per burst. */
uint16_t sg_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count);
uint16_t sg_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count);

/* Once per frame that does not travel in a burst. */
struct rte_mbuf *sg_pktmbuf_alloc(struct rte_mempool *pool);
void sg_pktmbuf_free(struct rte_mbuf *frame);

/* Management. */
int sg_errno(void);
unsigned int sg_lcore_id(void);
unsigned int sg_mempool_size(const struct rte_mempool *pool);
uint16_t sg_pktmbuf_data_room(struct rte_mempool *pool);
unsigned int sg_ring_dequeue(struct rte_ring *ring, void **objects, unsigned int count);
/* 1 up, 0 down, negative errno; speed in Mbit/s. The fields of struct rte_eth_link moved into unions in 24.11. */
int sg_link(uint16_t port, uint32_t *speed);

static const uint64_t SG_LCORE_ANY = LCORE_ID_ANY;
static const int32_t SG_SOCKET_ANY = SOCKET_ID_ANY;

static const uint64_t SG_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SG_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t SG_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t SG_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SG_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SG_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t SG_TX_OFFLOAD_MBUF_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;

static const uint32_t SG_DEV_INTR_LSC = RTE_ETH_DEV_INTR_LSC;

/* What we ask of RSS. */
static const uint64_t SG_RSS_WANTED = RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP;
static const uint64_t SG_RSS_IPV4 = RTE_ETH_RSS_IPV4;
static const uint64_t SG_RSS_FRAG_IPV4 = RTE_ETH_RSS_FRAG_IPV4;
static const uint64_t SG_RSS_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t SG_RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t SG_RSS_IPV4_OTHER = RTE_ETH_RSS_NONFRAG_IPV4_OTHER;
static const uint64_t SG_RSS_IPV6 = RTE_ETH_RSS_IPV6;
static const uint64_t SG_RSS_FRAG_IPV6 = RTE_ETH_RSS_FRAG_IPV6;
static const uint64_t SG_RSS_IPV6_TCP = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t SG_RSS_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint64_t SG_RSS_IPV6_OTHER = RTE_ETH_RSS_NONFRAG_IPV6_OTHER;

#endif
