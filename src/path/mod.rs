//! The six hops: rx -> decap -> (track) -> inspect -> encap -> tx.
