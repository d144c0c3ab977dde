use loom::sync::Arc;
use loom::thread;

use super::*;

/// Three workers ask at once for the two flows that a tenant may have: two get one, whoever they are.
#[test]
fn loom_as_many_come_in_as_may() {
    loom::model(|| {
        let rates = Arc::new(Rates::new([Some(20)].into_iter()));
        let ask = |ms| {
            let rates = rates.clone();
            move || u32::from(rates.has(0, ms) && rates.take(0, ms))
        };
        let others = [thread::spawn(ask(1000)), thread::spawn(ask(1000))];
        let own = ask(1000)();
        let all = others.into_iter().map(|other| other.join().unwrap()).sum::<u32>() + own;
        assert_eq!(all, 2);
    });
}
