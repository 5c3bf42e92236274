use std::fs;

/// Seconds after which a claim from another machine is taken to be dead.
const LEASE: i64 = 24 * 3600;

/// This process, as `host:pid:start`: a pid alone comes round again.
pub(super) fn this() -> String {
    let pid = std::process::id();
    format!("{}:{pid}:{}", host(), start_of(pid).unwrap_or_default())
}

/// Whether the process that claimed a cell `age` seconds ago may still work on it.
pub(super) fn is_alive(owner: &str, age: i64) -> bool {
    let mut parts = owner.rsplitn(3, ':');
    let (Some(start), Some(pid), Some(its_host)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    if its_host != host() || start.is_empty() {
        return age < LEASE;
    }
    pid.parse().ok().and_then(start_of).is_some_and(|now| now == start)
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    name.map(|name| name.trim().to_owned())
        .or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// When a process started, in the kernel's clock ticks; `None` when there is no such process or no `/proc`.
fn start_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    // A zombie holds its entry until it is waited for, but works on nothing.
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19).map(|&ticks| ticks.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_lives_and_a_dead_one_does_not() {
        assert!(is_alive(&this(), 10 * LEASE));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = format!("{}:{}:{}", host(), child.id(), start_of(child.id()).unwrap());
        assert!(is_alive(&owner, 0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(&owner, 0));
    }

    #[test]
    fn another_machine_has_a_lease() {
        assert!(is_alive("elsewhere:1:2", 10));
        assert!(!is_alive("elsewhere:1:2", LEASE + 1));
        assert!(!is_alive("nonsense", 0));
    }
}
