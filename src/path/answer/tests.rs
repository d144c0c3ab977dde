use super::*;

#[test]
fn a_bucket_holds_a_tenth_and_fills_at_its_rate() {
    let mut bucket = Bucket::new(1000);
    let mut take =
        |now: u64| (0..).take_while(|_| bucket.has_one(now).then(|| bucket.take()).is_some()).count();
    assert_eq!(take(5 * SECOND), 100, "full at first, and no fuller");
    assert_eq!(take(5 * SECOND), 0);
    assert_eq!(take(5 * SECOND + SECOND / 1000 - 1), 0);
    assert_eq!(take(5 * SECOND + SECOND / 1000), 1);
    assert_eq!(take(5 * SECOND), 0, "a clock that went back earns nothing");
    assert_eq!(take(5 * SECOND + SECOND / 100), 9);
    assert_eq!(take(u64::MAX), 100, "an age earns no more than it holds");
    // 0.7 of an answer per step: nothing is rounded away in ten thousand seconds.
    let mut bucket = Bucket::new(70);
    let sent = (0..=1_000_000_u64).filter(|step| {
        let has = bucket.has_one(step * 10_000_000);
        if has {
            bucket.take();
        }
        has
    });
    assert_eq!(sent.count(), 7 + 700_000, "what it held at first, and seventy a second");
    assert!(!Bucket::new(0).has_one(u64::MAX));
    assert!(Bucket::new(u32::MAX).has_one(0));
}
