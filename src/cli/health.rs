//! `sluicegate health`: asks a running instance whether it is fit. For containers and scripts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;

use super::{FAILED, Failure, OK, Outcome, show};

/// Bytes of an answer that are read: more than any has.
const LONGEST: u64 = 64 << 10;

/// Ask a running instance whether it is fit for traffic.
#[derive(Debug, Args)]
pub struct Health {
    /// Where it listens: `management.listen`, or an address of a port
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "SLUICEGATE_MANAGEMENT__LISTEN",
        default_value = "127.0.0.1:9100"
    )]
    address: SocketAddr,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "3s")]
    timeout: Duration,
}

impl Health {
    pub(super) fn run(self) -> Outcome {
        let Health { address, timeout } = self;
        let failed = |error: std::io::Error| {
            Failure::Other(format!(
                "{address}: {error}; is it running, and is that its management.listen (or the address of a port)?"
            ))
        };
        let answer = ask(address, timeout).map_err(failed)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        show::print(format_args!("{}\n", body.trim_end()))?;
        let code = head.split_whitespace().nth(1);
        Ok(if code == Some("200") { OK } else { FAILED })
    }
}

fn ask(address: SocketAddr, timeout: Duration) -> std::io::Result<String> {
    let end = Instant::now() + timeout;
    let left = || end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(
        format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    while answer.len() as u64 <= LONGEST {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut bytes)? {
            0 => break,
            n => answer.extend_from_slice(bytes.get(..n).unwrap_or(&[])),
        }
        if Instant::now() >= end {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
