use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;

use super::*;

type Owned = (u64, Link, u32, Vec<u8>);

fn read(bytes: &[u8]) -> Result<Vec<Owned>, Error> {
    let mut reader = Reader::new("test", bytes)?;
    let mut all = Vec::new();
    while let Some(f) = reader.next()? {
        all.push((f.time, f.link, f.wire_len, f.bytes.to_vec()));
    }
    Ok(all)
}

fn written(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new("test", Vec::new()).unwrap();
    for (time, frame) in frames {
        writer.write(*time, frame).unwrap();
    }
    writer.finish().unwrap()
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (12 + body.len()) as u32;
    [&kind.to_le_bytes()[..], &len.to_le_bytes(), body, &len.to_le_bytes()].concat()
}

fn section() -> Vec<u8> {
    let magic = 0x1a2b_3c4d_u32.to_le_bytes();
    block(0x0a0d_0d0a, &[&magic[..], &1u16.to_le_bytes(), &0u16.to_le_bytes(), &[0xff; 8]].concat())
}

fn interface(link: u16, options: &[u8]) -> Vec<u8> {
    block(1, &[&link.to_le_bytes()[..], &[0, 0], &262_144u32.to_le_bytes(), options].concat())
}

fn enhanced(interface: u32, ticks: u64, captured: u32, wire: u32, data: &[u8]) -> Vec<u8> {
    let (high, low) = ((ticks >> 32) as u32, ticks as u32);
    let head: Vec<u8> = [interface, high, low, captured, wire].iter().flat_map(|v| v.to_le_bytes()).collect();
    let padding = vec![0; data.len().next_multiple_of(4) - data.len()];
    block(6, &[&head[..], data, &padding].concat())
}

#[test]
fn what_is_written_is_read() {
    let frames = vec![(0, vec![]), (1_700_000_000_123_456_789, vec![7; 60]), (5, vec![1; 9000])];
    let back = read(&written(&frames)).unwrap();
    let want: Vec<_> = frames.into_iter().map(|(t, f)| (t, Link::Ethernet, f.len() as u32, f)).collect();
    assert_eq!(back, want);
}

#[test]
fn all_four_kinds_of_pcap_are_read() {
    for (magic, big, unit) in [
        ([0xd4, 0xc3, 0xb2, 0xa1], false, 1000),
        ([0x4d, 0x3c, 0xb2, 0xa1], false, 1),
        ([0xa1, 0xb2, 0xc3, 0xd4], true, 1000),
        ([0xa1, 0xb2, 0x3c, 0x4d], true, 1),
    ] {
        let word = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let half = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut file = [&magic[..], &half(2), &half(4), &[0; 8], &word(96), &word(101)].concat();
        // A frame that the snap length of 96 cut: pcap-file's own reader refuses it.
        file.extend([word(10), word(20), word(3), word(1500)].concat());
        file.extend(b"abc");
        let time = 10_000_000_000 + 20 * unit;
        assert_eq!(read(&file).unwrap(), [(time, Link::RawIp, 1500, b"abc".to_vec())]);
    }
}

#[test]
fn pcapng_times_follow_the_interface() {
    let resolution = |n: u8| [&9u16.to_le_bytes()[..], &1u16.to_le_bytes(), &[n, 0, 0, 0]].concat();
    let offset = [&14u16.to_le_bytes()[..], &8u16.to_le_bytes(), &100u64.to_le_bytes()].concat();
    let mut file = section();
    file.extend(interface(1, &[])); // microseconds, no options at all
    file.extend(interface(1, &resolution(9))); // nanoseconds, no end-of-options mark
    file.extend(interface(101, &[resolution(0x80 | 10), offset, vec![0; 4]].concat())); // 2^-10 s, 100 s later
    file.extend(block(5, &[0; 12])); // statistics: not of interest
    file.extend(enhanced(0, 1_000_001, 3, 3, b"abc"));
    file.extend(enhanced(1, 1_000_001, 4, 9, b"abcd"));
    file.extend(enhanced(2, 512, 1, 1, b"x"));
    file.extend(block(3, &[&2u32.to_le_bytes()[..], b"hi\0\0"].concat()));
    let want = [
        (1_000_001_000, Link::Ethernet, 3, b"abc".to_vec()),
        (1_000_001, Link::Ethernet, 9, b"abcd".to_vec()),
        (100_500_000_000, Link::RawIp, 1, b"x".to_vec()),
        (0, Link::Ethernet, 2, b"hi".to_vec()),
    ];
    assert_eq!(read(&file).unwrap(), want);
}

#[test]
fn errors_say_what_and_where() {
    let whole = written(&[(1, vec![1; 60]), (2, vec![2; 60])]);
    let say = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert!(say(&[]).contains("empty"));
    assert!(say(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n").contains("not a capture file"));
    assert!(say(&whole[..20]).contains("ends inside its header"));
    assert!(say(&whole[..24 + 76 + 30]).contains("ends inside record 2"));
    assert!(say(&whole[..24 + 76 + 3]).contains("ends inside record 2"));
    let mut huge = whole.clone();
    huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(say(&huge).contains("4294967295 bytes in one frame"));
    let mut wifi = whole.clone();
    wifi[20] = 105;
    assert!(say(&wifi).contains("link type 105 (IEEE802_11)"));

    let ng = |tail: Vec<u8>| say(&[section(), interface(1, &[]), tail].concat());
    assert!(ng(enhanced(1, 0, 1, 1, b"a")).contains("interface 1, which was not described"));
    assert!(ng(enhanced(0, 0, 99, 99, b"a")).contains("record 3: a packet of 99 bytes"));
    assert!(ng(enhanced(0, 0, u32::MAX, 1, b"a")).contains("a packet of 4294967295 bytes"));
    assert!(ng(enhanced(0, 0, 1, 1, b"a")[..20].to_vec()).contains("ends inside record 3"));
    assert!(ng([6u32.to_le_bytes(), (1u32 << 30).to_le_bytes(), [0; 4]].concat()).contains("at most"));
    assert!(ng(block(6, &[])).contains("too short"));
    // An unknown block may claim any length; it is skipped without memory.
    assert!(ng([99u32.to_le_bytes(), 0xffff_fffcu32.to_le_bytes(), [0; 4]].concat()).contains("ends inside"));
}

#[test]
fn a_gigabyte_that_is_not_there_costs_nothing() {
    let mut file = written(&[]);
    file.extend([[0; 4], [0; 4], MAX_RECORD.to_le_bytes(), MAX_RECORD.to_le_bytes()].concat());
    file.extend([1, 2, 3]);
    let mut reader = Reader::new("test", &file[..]).unwrap();
    assert!(matches!(reader.next(), Err(Error::Truncated { record: 1, .. })));
    assert!(reader.record.capacity() < 1024, "{}", reader.record.capacity());
}

/// Other people's writers: editcap's pcapng and both its pcap kinds must read like our own file.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn files_of_editcap_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let frames = [(1_600_000_000_000_001_000, vec![0xaa; 61]), (1_600_000_001_999_999_000, vec![0xbb; 1500])];
    std::fs::write(at("own.pcap"), written(&frames)).unwrap();
    let want = read(&std::fs::read(at("own.pcap")).unwrap()).unwrap();
    for kind in ["pcapng", "pcap", "nsecpcap"] {
        let done = Command::new("editcap").args(["-F", kind]).arg(at("own.pcap")).arg(at(kind)).output();
        let Ok(done) = done else {
            eprintln!(
                "SKIPPED files_of_editcap_are_read: editcap is not installed (package wireshark-common)"
            );
            return;
        };
        assert!(done.status.success(), "{done:?}");
        let mut reader = Reader::open(&at(kind)).unwrap();
        for want in &want {
            let f = reader.next().unwrap().unwrap();
            assert_eq!(&(f.time, f.link, f.wire_len, f.bytes.to_vec()), want, "{kind}");
        }
        assert!(reader.next().unwrap().is_none());
    }
}

proptest! {
    #[test]
    fn any_frames_survive(frames in prop::collection::vec((0..4_000_000_000_000_000_000u64, prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
        let back = read(&written(&frames)).unwrap();
        prop_assert_eq!(back.len(), frames.len());
        for (got, want) in back.iter().zip(&frames) {
            prop_assert_eq!((got.0, &got.3), (want.0, &want.1));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_all_bounded(&bytes);
    }

    #[test]
    fn no_damage_makes_it_panic(cut in 0usize..400, changes in prop::collection::vec((0usize..400, any::<u8>()), 0..6), ng in any::<bool>()) {
        let mut file = if ng {
            [section(), interface(1, &[9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]), enhanced(0, 7, 5, 5, b"abcde"), section(),
             interface(1, &[]), enhanced(0, 7, 5, 5, b"abcde")].concat()
        } else {
            written(&[(1, vec![1; 60]), (2, vec![2; 60])])
        };
        for (at, value) in changes {
            let len = file.len();
            file[at % len] = value;
        }
        file.truncate(cut);
        let _ = read_all_bounded(&file);
    }
}
