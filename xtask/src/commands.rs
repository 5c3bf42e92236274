//! The commands that the documentation shows: all of them exist as they are written, and those for a beginner are run.

use crate::command::{built_sketchkv, in_ci, output, succeeds};
use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Pages whose commands are run, one after the other in a folder of their own. All work on models that are at hand.
const RUN: [&str; 3] = ["docs/start.md", "docs/choose.md", "docs/extend.md"];

/// The model that the commands of those pages work on, unless it is the one in the program.
const REAL: &str = "smollm2-135m";

/// What a command of those pages may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A line of a page that a reader would paste into a terminal.
struct Shown {
    page: String,
    number: usize,
    line: String,
}

impl Shown {
    fn place(&self) -> String {
        format!("{}:{}: {}", self.page, self.number, self.line)
    }

    /// The programs that the line starts, each with its arguments.
    fn programs(&self) -> Result<Vec<Vec<String>>> {
        let words = shlex::split(&self.line).with_context(|| format!("{}: a quote is open", self.place()))?;
        let ends = |word: &String| ["|", "||", "&&", ";", "&", ">", "<"].contains(&word.as_str());
        let programs = words.split(ends).filter(|words| !words.is_empty()).map(<[String]>::to_vec);
        Ok(programs.collect())
    }
}

/// The stage of `cargo xtask test`.
pub(crate) fn check() -> Result<()> {
    let mut pages = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir("docs").context("docs cannot be listed")? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "md") {
            pages.push(path.display().to_string());
        }
    }
    pages.sort();
    let mut shown = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).with_context(|| format!("cannot read {page}"))?;
        shown.extend(commands_of(page, &text));
    }
    let program = built_sketchkv()?;
    let mut wrong = unknown(&shown, &program)?;
    wrong.extend(unmade(&shown)?);
    wrong.extend(unlike(&pages)?);
    if !wrong.is_empty() {
        bail!("these do not exist as they are written:\n{}", wrong.join("\n"));
    }
    eprintln!("{} lines of commands on {} pages are written as they exist", shown.len(), pages.len());
    RUN.iter().try_for_each(|page| run(page, &shown, &program))
}

/// The lines of commands of a page: in blocks of `sh` and `bash`, and indented ones. A line that ends in a
/// backslash goes on, as one does in which a quote is open.
fn commands_of(page: &str, text: &str) -> Vec<Shown> {
    const PROGRAMS: [&str; 5] = ["sketchkv ", "cargo ", "python3 ", "python ", "curl "];
    let (mut shown, mut fence): (Vec<Shown>, Option<bool>) = (Vec::new(), None);
    let mut goes_on = false;
    for (index, line) in text.lines().enumerate() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(["sh", "bash"].contains(&kind.trim())) };
            continue;
        }
        let line = match (fence, line.strip_prefix("    ")) {
            (Some(true), _) => line.trim(),
            (None, Some(line)) => line.trim(),
            _ => continue,
        };
        // What it does may stand behind it.
        let line = line.split("   ").next().unwrap_or(line);
        let (part, more) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match shown.last_mut() {
            // Within a quote the line break is part of the text.
            Some(last) if goes_on => {
                let joint = if shlex::split(&last.line).is_none() { '\n' } else { ' ' };
                last.line = format!("{}{joint}{part}", last.line);
            }
            _ if PROGRAMS.iter().any(|program| line.starts_with(program)) => {
                shown.push(Shown { page: page.to_owned(), number: index + 1, line: part.to_owned() });
            }
            _ => continue,
        }
        let open = shown.last().is_some_and(|last| shlex::split(&last.line).is_none());
        goes_on = more || open;
    }
    shown
}

/// The arguments of `sketchkv` where a program is it, or is how cargo runs it.
fn of_sketchkv(words: &[String]) -> Option<&[String]> {
    match words.first().map(String::as_str)? {
        "sketchkv" => Some(&words[1..]),
        "cargo" if words.get(1).is_some_and(|word| word == "run") => {
            let end = words.iter().position(|word| word == "--")?;
            let other = |word: &String| ["-p", "--package", "--example", "--bin"].contains(&word.as_str());
            (!words[..end].iter().any(other)).then_some(&words[end + 1..])
        }
        _ => None,
    }
}

/// The words without what an example leaves open: `…` and the option it is of, and variables of the shell.
fn written_out(words: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for word in words {
        if word == "…" {
            out.pop_if(|before| before.starts_with('-'));
        } else if let Some((before, after)) = word.split_once('$') {
            let after = after.trim_start_matches(|c: char| c.is_ascii_uppercase() || c == '_');
            let word = format!("{before}1{after}");
            out.extend((!before.is_empty() || !after.is_empty()).then_some(word));
        } else {
            out.push(word.clone());
        }
    }
    out
}

/// Command lines of `sketchkv` that its own parser refuses.
fn unknown(shown: &[Shown], program: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for one in shown {
        for words in one.programs()? {
            if let Some(words) = of_sketchkv(&words) {
                let words = written_out(words);
                lines.push((one, serde_json::to_string(&words)?));
            }
        }
    }
    let mut parser = Command::new(program);
    parser
        .args(["reference", "--parse"])
        .env("SKETCHKV_CONFIG", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut parser = parser.spawn().context("cannot start sketchkv")?;
    let text: String = lines.iter().map(|(_, words)| format!("{words}\n")).collect();
    parser.stdin.take().context("it has an input")?.write_all(text.as_bytes())?;
    let answer = parser.wait_with_output()?;
    let answers: Vec<Value> =
        serde_json::from_slice(&answer.stdout).context("`sketchkv reference --parse` failed")?;
    let wrong = lines
        .iter()
        .zip(answers)
        .filter_map(|((shown, _), answer)| Some(format!("{}\n    {}", shown.place(), answer.as_str()?)));
    Ok(wrong.collect())
}

/// Chores and scripts, or options of theirs, that there are not.
fn unmade(shown: &[Shown]) -> Result<Vec<String>> {
    let (mut wrong, mut helps) = (Vec::new(), BTreeMap::new());
    for one in shown {
        for words in one.programs()? {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match &words[..] {
                ["cargo", "xtask", words @ ..] => {
                    if let Err(error) =
                        crate::Arguments::command().try_get_matches_from([&["xtask"], words].concat())
                        && error.use_stderr()
                    {
                        let error = error.to_string();
                        wrong.push(format!(
                            "{}\n    {}",
                            one.place(),
                            error.lines().next().unwrap_or_default()
                        ));
                    }
                }
                ["python" | "python3", script, words @ ..] if script.ends_with(".py") => {
                    if !Path::new(script).is_file() {
                        wrong.push(format!("{}\n    there is no {script}", one.place()));
                        continue;
                    }
                    if !helps.contains_key(*script) {
                        let help = output(Command::new("python3").args([script, "--help"]))?;
                        helps.insert(script.to_string(), help);
                    }
                    let known = |option: &str| {
                        let ends = |c: char| c.is_whitespace() || ",=[]".contains(c);
                        helps[*script].split(ends).any(|word| word == option)
                    };
                    let options =
                        words.iter().filter(|word| word.starts_with('-') && word.parse::<f64>().is_err());
                    let options = options.map(|word| word.split('=').next().unwrap_or(word));
                    wrong.extend(
                        options
                            .filter(|option| !known(option))
                            .map(|option| format!("{}\n    {script} has no {option}", one.place())),
                    );
                }
                _ => {}
            }
        }
    }
    Ok(wrong)
}

/// Code of pages, behind `<!-- from FILE -->`, that is not to be found in that file.
fn unlike(pages: &[String]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for page in pages {
        let text = fs::read_to_string(page)?;
        for part in text.split("<!-- from ").skip(1) {
            let (file, rest) =
                part.split_once(" -->").with_context(|| format!("{page}: a remark is open"))?;
            let code = rest
                .split("```")
                .nth(1)
                .and_then(|block| block.split_once('\n'))
                .map_or("", |(_, code)| code);
            let source = fs::read_to_string(file).with_context(|| format!("{page} shows code of {file}"))?;
            if code.trim().is_empty() || !source.contains(code.trim_end()) {
                wrong.push(format!("{page}: the code of {file} is another"));
            }
        }
    }
    Ok(wrong)
}

/// Runs the commands of a page as its reader would, in a new folder.
fn run(page: &str, shown: &[Shown], program: &Path) -> Result<()> {
    let folder = env::current_dir()?.join("target/documented").join(page.replace('/', "-"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let start = Instant::now();
    // In a checkout of a developer without a network there may be no real model.
    let real = in_ci() || succeeds(Command::new(program).args(["info", "-m", REAL]));
    let ours = |one: &&Shown| {
        one.page == page
            && one.line.starts_with("sketchkv ")
            && !one.line.contains('…')
            && (real || !one.line.contains(REAL))
    };
    for one in shown.iter().filter(ours) {
        let begin = Instant::now();
        let mut shell = Command::new("sh");
        shell.args(["-c", &one.line]).current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null());
        let folders = [program.parent().context("a program lies in a folder")?.to_owned()];
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(folders.into_iter().chain(env::split_paths(&path)))?;
        shell.env("PATH", path).env("SKETCHKV_CONFIG", folder.join("config.toml")).stderr(Stdio::piped());
        let done = shell.output().context("cannot start sh")?;
        if !done.status.success() {
            bail!("{} failed:\n{}", one.place(), String::from_utf8_lossy(&done.stderr));
        }
        if begin.elapsed() > LIMIT {
            bail!(
                "{} took {:.0} s: too long for a reader to wait",
                one.place(),
                begin.elapsed().as_secs_f64()
            );
        }
    }
    eprintln!("{page}: all commands ran, in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_where_a_reader_sees_them() {
        let text = "say `sketchkv run`\n\n    sketchkv run 'a | b' | head\n\n```sh\nsketchkv compare \\\n  --quick # all\n```\n\n\
                    ```text\nsketchkv no\n```\n\n    let x = 1;\n";
        let shown = commands_of("page", text);
        let programs: Vec<_> = shown.iter().flat_map(|one| one.programs().unwrap()).collect();
        assert_eq!(programs[0], ["sketchkv", "run", "a | b"]);
        assert_eq!(programs[1], ["head"]);
        assert_eq!(programs[2], ["sketchkv", "compare", "--quick"]);
        assert_eq!(programs.len(), 3);
    }

    #[test]
    fn what_an_example_leaves_open_is_left_out() {
        let words = shlex::split("compare $T --text … --kv full --results part$ID.sqlite").unwrap();
        assert_eq!(written_out(&words), ["compare", "--kv", "full", "--results", "part1.sqlite"]);
    }

    #[test]
    fn cargo_runs_ours_or_another() {
        let of = |line: &str| of_sketchkv(&shlex::split(line).unwrap()).map(<[String]>::to_vec);
        assert_eq!(of("cargo run --release -- compare --quick").unwrap(), ["compare", "--quick"]);
        assert_eq!(of("cargo run -p xtask -- test"), None);
        assert_eq!(of("cargo build --release"), None);
    }
}
