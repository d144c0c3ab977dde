use std::net::TcpStream;

use super::*;
use crate::mgmt::State;

/// A server with a page of so many bytes.
fn server(bytes: usize) -> (Server, Arc<Board>) {
    let board = Arc::new(Board::new(Instant::now(), http::some_status(State::Ready)));
    let page: Arc<[u8]> = vec![b'#'; bytes].into();
    let answers = Answers {
        board: board.clone(),
        page: Arc::new(move || page.clone()),
        token: None,
        open: true,
        api: None,
    };
    (
        Server::open("management.listen", ([127, 0, 0, 1], 0).into(), Box::new(answers), Vec::new()).unwrap(),
        board,
    )
}

fn asks(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    stream
}

fn all(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // a connection that is cut ends with an error
    answer
}

fn says(server: &Server, path: &str) -> String {
    String::from_utf8(all(asks(server, path))).unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Health is what the main lcore has said last; when it is silent, nobody is told that all is well.
#[test]
fn a_main_lcore_that_is_silent_is_not_alive() {
    let (server, board) = server(0);
    for path in ["/", "/readyz", "/healthz", "/livez"] {
        assert!(says(&server, path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    board.say(&http::some_status(State::Failed));
    assert!(says(&server, "/readyz").starts_with("HTTP/1.1 503 "));
    assert!(says(&server, "/livez").starts_with("HTTP/1.1 200 "));
    board.say(&http::some_status(State::Ready));
    board.said.lock().1 -= STALE;
    for path in ["/", "/readyz", "/healthz", "/livez"] {
        let answer = says(&server, path);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("has not moved for 5 s"), "{answer}");
    }
    assert!(says(&server, "/healthz").contains("\"cause\":\"management-stuck\""));
    assert!(says(&server, "/other").starts_with("HTTP/1.1 404 "));
    board.say(&http::some_status(State::Ready));
    assert!(says(&server, "/livez").starts_with("HTTP/1.1 200 "));
}

#[test]
fn there_may_be_no_figures_yet() {
    let (server, _) = server(0);
    assert!(says(&server, "/metrics").starts_with("HTTP/1.1 503 "));
    assert!(says(&server, "/metrics").ends_with("no figures yet\n"));
}

/// A page arrives whole, however large, and however many ask for it.
#[test]
fn large_pages_arrive_whole() {
    let (server, _) = server(20 << 20);
    let readers: Vec<_> = (0..8).map(|_| asks(&server, "/metrics")).collect();
    let readers: Vec<_> =
        readers.into_iter().map(|stream| std::thread::spawn(|| all(stream).len())).collect();
    let sizes: Vec<usize> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(sizes.iter().all(|size| *size == sizes[0] && *size > 20 << 20), "{sizes:?}");
    assert_eq!((server.counts().requests[0], server.counts().cut), (8, 0));
}

/// Readers who take nothing have all places: one more is told so at once, and after ten seconds they are cut.
#[test]
fn readers_who_take_nothing_are_cut_alone() {
    let (server, board) = server(64 << 20);
    let begun = Instant::now();
    let lazy: Vec<_> = (0..CONNECTIONS).map(|_| asks(&server, "/metrics")).collect();
    until("all have asked", || server.counts().requests[0] == CONNECTIONS as u64);
    let answer = says(&server, "/livez");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many connections"), "{answer}");
    assert!(begun.elapsed() < READING, "{:?}", begun.elapsed());
    assert_eq!((server.counts().refused, server.counts().cut), (1, 0));
    until("they are cut", || server.counts().cut == CONNECTIONS as u64);
    let took = begun.elapsed();
    assert!(took > READING && took < READING + Duration::from_secs(4), "{took:?}");
    board.say(&http::some_status(State::Ready)); // it has been silent meanwhile
    until("there is room again", || says(&server, "/livez").starts_with("HTTP/1.1 200 "));
    drop(lazy);
}

/// Nobody is left behind when it ends, whatever they were doing.
#[test]
fn it_ends_at_once() {
    let (server, _) = server(64 << 20);
    let address = server.address().unwrap();
    let lazy = asks(&server, "/metrics");
    let silent = TcpStream::connect(address).unwrap();
    until("both are there", || server.counts().connections == 2);
    let shared = server.shared.clone();
    let begun = Instant::now();
    drop(server);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(Arc::strong_count(&shared), 1, "no thread is left");
    assert!(TcpStream::connect(address).is_err());
    drop((lazy, silent));
}

/// Who has an answer and does not close holds no place against others.
#[test]
fn those_who_have_their_answer_make_room() {
    let (server, _) = server(0);
    until("one made room", || {
        let done: Vec<_> = (0..CONNECTIONS).map(|_| asks(&server, "/livez")).collect();
        done.iter().for_each(|mut stream| stream.read_exact(&mut [0; 16]).unwrap_or_default());
        let before = server.counts().evicted;
        says(&server, "/livez").starts_with("HTTP/1.1 200 ") && server.counts().evicted > before
    });
}
