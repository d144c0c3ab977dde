use super::*;
use crate::wire::geneve::{AWS, GOOGLE, TENCENT};

#[test]
fn only_direction_bits_turn() {
    let seen = Envelope { node: [10, 0, 0, 1], cookie: 0x1fed_cba9, port: 60_000 };
    assert_eq!(seen.turned(&AWS), seen);
    assert_eq!(seen.turned(&GOOGLE), seen);
    let turned = seen.turned(&TENCENT);
    assert_eq!(turned, Envelope { cookie: 0x3fed_cba9, ..seen }, "the cookie's own 29 bits stay");
    assert_eq!(turned.turned(&TENCENT), seen);
}
