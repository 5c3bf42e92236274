use serde::{Deserialize, Serialize};
use std::{fmt, fs};

/// The machine a number was taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name for itself; empty where the system does not tell.
    pub cpu: String,
    /// Logical processors available to this process.
    pub cores: usize,
    /// Installed memory in bytes; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores", self.cpu, self.cores)
    }
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = field("/proc/meminfo", "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.unwrap_or(0) * 1024,
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
        }
    }
}

/// Sets the process's peak of resident memory back to what is resident now.
///
/// Needs Linux and the right to write `/proc/self/clear_refs`; without it [`peak_resident`] is the peak since the
/// process began.
pub(crate) fn reset_peak_resident() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Peak of resident memory in bytes since the last reset; `None` where the system does not tell.
pub fn peak_resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_sees_what_was_touched() {
        reset_peak_resident();
        let before = peak_resident().unwrap();
        let block = vec![1u8; 64 << 20];
        std::hint::black_box(&block);
        assert!(peak_resident().unwrap() >= before + (60 << 20));
    }

    #[test]
    fn this_machine_has_cores() {
        assert!(Machine::this().cores > 0);
    }
}
