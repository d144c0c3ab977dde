//! A file that is rotated by size and age, and opened anew on request.
//!
//! `eve.json` becomes `eve.json.1`, that becomes `eve.json.2`, and so on; the oldest goes. For a tool that renames the file itself
//! (logrotate) there is the request: the file of that name is opened, and made if it is not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::Rotation;

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    /// `None` while it could not be opened.
    file: Option<File>,
    /// Bytes of whole lines in it.
    len: u64,
    since: Instant,
}

impl LogFile {
    /// Opens a file to append to.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let (file, len) = append(path)?;
        Ok(LogFile { path: path.to_owned(), rotation, file: Some(file), len, since: Instant::now() })
    }

    /// Writes whole lines. If not all of them can be written, the file ends where it ended before.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full = self.rotation.size.is_some_and(|most| self.len + bytes.len() as u64 > most);
        if full && self.len > 0 {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else { return Err(self.named(&io::ErrorKind::NotFound.into())) };
        if let Err(error) = file.write_all(bytes) {
            // A pipe or a device has no length to go back to.
            let _ = file.set_len(self.len);
            return Err(self.named(&error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Begins a new file if this one is old enough and not empty.
    pub fn rotate_by_age(&mut self) -> io::Result<()> {
        let old = self.rotation.age.is_some_and(|age| self.since.elapsed() >= age);
        if old && self.len > 0 { self.rotate() } else { Ok(()) }
    }

    /// Opens the file of that name, whatever has become of the one that was open.
    pub fn reopen(&mut self) -> io::Result<()> {
        match append(&self.path) {
            Ok((file, len)) => {
                (self.file, self.len, self.since) = (Some(file), len, Instant::now());
                Ok(())
            }
            Err(error) => Err(self.named(&error)), // the old one goes on
        }
    }

    /// The file gets a number, and those that have one the next.
    fn rotate(&mut self) -> io::Result<()> {
        // Whatever goes wrong, it is tried again no sooner than it would be due for a fresh file: meanwhile this one grows.
        self.since = Instant::now();
        for n in (1..self.rotation.keep).rev() {
            let from = self.numbered(n);
            if from.exists() {
                fs::rename(&from, self.numbered(n + 1)).map_err(|error| self.named(&error))?;
            }
        }
        fs::rename(&self.path, self.numbered(1)).map_err(|error| self.named(&error))?;
        self.reopen()
    }

    fn numbered(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

/// The file, and its length: lines of an earlier run stay.
fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rotation(size: u64, keep: u32) -> Rotation {
        Rotation { size: Some(size), age: None, keep }
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|_| "-".into())
    }

    #[test]
    fn a_file_is_rotated_by_size_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.json");
        let mut file = LogFile::open(&path, rotation(10, 2)).unwrap();
        for line in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n", "eeee\n", "ffff\n", "gggg\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        let found = ["eve.json", "eve.json.1", "eve.json.2", "eve.json.3"]
            .map(|name| read(&folder.path().join(name)));
        assert_eq!(found, ["gggg\n", "eeee\nffff\n", "cccc\ndddd\n", "-"]);
        // One that was there is gone on with, and its length counts.
        drop(file);
        let mut file = LogFile::open(&path, rotation(10, 2)).unwrap();
        file.write(b"hhhhhhh\n").unwrap();
        assert_eq!([read(&path), read(&folder.path().join("eve.json.1"))], ["hhhhhhh\n", "gggg\n"]);
        // What is larger than a file may be gets a file of its own.
        file.write(b"a line of more than ten bytes\n").unwrap();
        assert_eq!(read(&path), "a line of more than ten bytes\n");
    }

    #[test]
    fn a_file_is_rotated_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.json");
        let age = Some(Duration::from_millis(20));
        let mut file = LogFile::open(&path, Rotation { size: None, age, keep: 1 }).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        file.rotate_by_age().unwrap();
        assert!(!folder.path().join("eve.json.1").exists(), "an empty file stays");
        file.write(b"a\n").unwrap();
        file.rotate_by_age().unwrap();
        file.write(b"b\n").unwrap();
        assert_eq!([read(&path), read(&folder.path().join("eve.json.1"))], ["b\n", "a\n"]);
    }

    /// logrotate's way: the file gets another name, and then the program is told.
    #[test]
    fn a_file_that_was_renamed_is_written_until_it_is_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("eve.json"), folder.path().join("old"));
        let mut file = LogFile::open(&path, Rotation::default()).unwrap();
        file.write(b"a\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write(b"b\n").unwrap();
        file.reopen().unwrap();
        file.write(b"c\n").unwrap();
        assert_eq!([read(&moved), read(&path)], ["a\nb\n", "c\n"]);
        // A folder that is gone: the old file goes on, and so does everything else.
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(file.reopen().unwrap_err().to_string().contains("eve.json"));
        file.write(b"d\n").unwrap();
    }

    /// The device that is always full.
    #[test]
    fn a_full_disk_is_an_error_and_no_more() {
        let mut file = LogFile::open(Path::new("/dev/full"), Rotation::default()).unwrap();
        for _ in 0..3 {
            let error = file.write(b"a\n").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        }
        assert_eq!(file.len, 0);
    }
}
