/// Is told how a pull goes while it goes on. `()` does not listen.
pub trait Progress {
    /// A file begins to come, of so many bytes if that is known.
    fn begin(&mut self, file: &str, bytes: Option<u64>) {
        let _ = (file, bytes);
    }

    /// So many bytes of it are here.
    fn reached(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// Something else worth a line.
    fn note(&mut self, line: &str) {
        let _ = line;
    }

    /// Whether to stop, asked with every piece that comes; what is here stays, to be gone on from.
    fn stopped(&mut self) -> bool {
        false
    }

    /// Nothing more comes from this source: all is here, or another one is tried.
    fn end(&mut self) {}
}

impl Progress for () {}
