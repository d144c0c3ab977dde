//! `sluicegate capture`: frames of a running instance, as pcapng, while they go through.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::instance::{Instance, refused};
use super::{Failure, OK, Outcome, show};

/// Frames of a running instance, as pcapng.
#[derive(Debug, Args)]
pub struct Capture {
    /// Terms that must all hold: tenant=, endpoint=, protocol=, address=, source=, destination=, port=, source-port=, destination-port= (of the inner
    /// packet), fate= (home, dropped, punted, held), reason= (why it was dropped)
    #[arg(value_name = "TERM")]
    filter: Vec<String>,
    #[command(flatten)]
    instance: Instance,
    /// Where to write: a file, or - for standard output (sluicegate capture -w - | wireshark -k -i -)
    #[arg(short, long, value_name = "PCAPNG")]
    write: PathBuf,
    /// Which side of the pipeline
    #[arg(long, value_enum, default_value_t = At::Before)]
    at: At,
    /// Stop after so many frames
    #[arg(short = 'c', long, value_name = "N")]
    packets: Option<u64>,
    /// Stop after so many bytes of frames
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
    /// Stop after so long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Bytes of each frame, 64 to 9216
    #[arg(short, long, value_name = "BYTES", default_value_t = 9216)]
    snap: u32,
    /// Frames of each worker in a second; more are counted and left out
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rate: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum At {
    /// As they came; what became of each is its comment
    Before,
    /// What goes home, as it leaves, and what was made in answer
    After,
    /// Both, on interfaces of their own
    Both,
}

impl Capture {
    pub(super) fn run(self) -> Outcome {
        let client = self.instance.client()?;
        let filter = self.filter.join(" ");
        let at = match self.at {
            At::Before => "before",
            At::After => "after",
            At::Both => "both",
        };
        let (snap, rate) = (self.snap.to_string(), self.rate.to_string());
        let more = [
            ("packets", self.packets),
            ("bytes", self.bytes),
            ("seconds", self.duration.map(|time| time.as_secs().max(1))),
        ];
        let more: Vec<(&str, String)> =
            more.into_iter().filter_map(|(name, n)| Some((name, n?.to_string()))).collect();
        let mut query = vec![("filter", filter.as_str()), ("at", at), ("snap", &snap), ("rate", &rate)];
        query.extend(more.iter().map(|(name, text)| (*name, text.as_str())));
        let to_stdout = self.write == Path::new("-");
        if to_stdout && std::io::stdout().is_terminal() {
            return Err(Failure::Other(
                "that is no text for a terminal: write to a file, or into a pipe".into(),
            ));
        }
        let mut stream = client.stream("capture", &query).map_err(|error| refused(error, &filter))?;
        let failed = |error: std::io::Error| Failure::Other(format!("{}: {error}", self.write.display()));
        let mut out: Box<dyn Write> = match to_stdout {
            true => Box::new(std::io::stdout().lock()),
            false => Box::new(File::create(&self.write).map_err(failed)?),
        };
        let (mut bytes, mut all) = (vec![0; 64 << 10], 0u64);
        loop {
            let n = match stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Other(format!("the capture broke off: {error}"))),
            };
            all += n as u64;
            match out.write_all(bytes.get(..n).unwrap_or_default()).and_then(|()| out.flush()) {
                // The reader has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(OK),
                written => written.map_err(failed)?,
            }
        }
        if !to_stdout {
            show::print(format_args!("{} bytes in {}\n", show::grouped(all), self.write.display()))?;
        }
        Ok(OK)
    }
}
