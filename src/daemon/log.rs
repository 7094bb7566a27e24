//! The log of a daemon without a terminal: a file of bounded size in the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// Size at which the file is put aside and a new one begun, in bytes. One old file is kept.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Most bytes that are kept until there is a file for them; what comes after is lost.
const EARLY_BYTES_MAX: usize = 64 << 10;

/// Where log lines go: into memory until a file is attached. Clones are the same log.
#[derive(Clone)]
pub struct DaemonLog {
    /// Guards what was written; held while a line is, and nothing is locked under it.
    sink: Arc<Mutex<Sink>>,
}

enum Sink {
    Early(Vec<u8>),
    File(LogFile),
}

struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Default for DaemonLog {
    fn default() -> Self {
        Self { sink: Arc::new(Mutex::new(Sink::Early(Vec::new()))) }
    }
}

impl DaemonLog {
    /// Sends all lines to the file at `path`, behind what it holds; those before as well.
    ///
    /// # Errors
    /// Those of opening and writing the file.
    pub fn attach(&self, path: &Path) -> io::Result<()> {
        let mut file = LogFile::open(path)?;
        let mut sink = self.sink.lock();
        if let Sink::Early(lines) = &*sink {
            file.write(lines)?;
        }
        *sink = Sink::File(file);
        Ok(())
    }

    /// The lines that no file has got, for a daemon that ends before it has one.
    pub fn take_early(&self) -> Vec<u8> {
        match &mut *self.sink.lock() {
            Sink::Early(lines) => std::mem::take(lines),
            Sink::File(_) => Vec::new(),
        }
    }
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if FILE_BYTES_MAX < self.bytes {
            let mut old = self.path.clone().into_os_string();
            old.push(".old");
            fs::rename(&self.path, old)?;
            *self = Self::open(&self.path)?;
        }
        self.bytes += u64::try_from(line.len()).expect("a usize fits");
        self.file.write_all(line)
    }
}

impl Write for DaemonLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *self.sink.lock() {
            Sink::File(file) => file.write(line)?,
            Sink::Early(lines) if lines.len() + line.len() <= EARLY_BYTES_MAX => {
                lines.extend_from_slice(line);
            }
            Sink::Early(_) => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_grows_past_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon.log");
        let mut log = DaemonLog::default();
        log.write_all(b"early\n").unwrap();
        log.attach(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"early\n");
        let line = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            log.write_all(&line).unwrap();
        }
        let mut bytes = 0;
        for entry in fs::read_dir(directory.path()).unwrap() {
            bytes += entry.unwrap().metadata().unwrap().len();
        }
        assert!(bytes <= 2 * (FILE_BYTES_MAX + (1 << 20)), "{bytes}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
