//! The cycle counter: read once per poll, never per packet.

/// Cycles of a constant-rate counter. Only differences on one machine mean something.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC exists on every x86-64 and has no effect on memory.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// How many [`cycles`] make a second. With an EAL that is DPDK's figure; without, it is measured once over 10 ms.
pub fn cycles_per_second() -> u64 {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};
    static HZ: OnceLock<u64> = OnceLock::new();
    *HZ.get_or_init(|| {
        #[cfg(all(feature = "dpdk", target_arch = "x86_64"))]
        if let Some(hz) = super::eal::tsc_hz() {
            return hz;
        }
        let (wall, start) = (Instant::now(), cycles());
        while wall.elapsed() < Duration::from_millis(10) {
            std::hint::spin_loop();
        }
        let spent = cycles() - start;
        (spent as f64 / wall.elapsed().as_secs_f64()) as u64
    })
}
