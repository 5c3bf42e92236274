use crate::{failure::usage, output};
use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

/// Explain a command, or a topic: what a spec is, how sessions, settings and batches work.
#[derive(clap::Args)]
#[command(after_help = "sketchkv help specs\nsketchkv help run")]
pub(crate) struct Arguments {
    /// A topic or a command [default: the list of both].
    #[arg(value_name = "TOPIC")]
    topic: Vec<String>,
}

/// What the documentation says of the command, of which every section is a topic.
const TEXT: &str = include_str!("../../../../docs/usage.md");
/// Where the help of the commands begins, which they print themselves.
const COMMANDS: &str = "<!-- commands";

/// The topics: their names, the headings of their sections, and what they are about.
const TOPICS: [(&str, &str, &str); 8] = [
    ("specs", "Specs", "what --kv takes: methods, caps, presets, profiles, documents"),
    ("names", "Models", "what --model takes, and where models are kept"),
    ("sessions", "Sessions", "caches on disk that are gone on with"),
    ("batch", "Many prompts", "run --input: a line of JSON a prompt"),
    ("settings", "What is set once", "the configuration file and the environment"),
    ("conversation", "A conversation", "what can be said to chat"),
    ("forms", "Texts of a given form", "JSON of a schema, a regex, a grammar"),
    ("json", "compare as JSON", "the fields of compare --json"),
];

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        if self.topic.is_empty() {
            output::line(help_of(&[])?)?;
            let topics = TOPICS.iter().map(|(name, _, about)| format!("  {name:<14}{about}\n"));
            return output::line(format!("\nTopics:\n{}", topics.collect::<String>().trim_end()));
        }
        if let [topic] = &self.topic[..]
            && let Some((_, heading, _)) = TOPICS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(topic))
        {
            return output::line(output::page(section(heading).unwrap_or_default()));
        }
        let root = crate::Arguments::command();
        if self.topic.iter().try_fold(&root, |command, name| command.find_subcommand(name)).is_none() {
            let (asked, topics) = (self.topic.join(" "), TOPICS.map(|(name, ..)| name).join(", "));
            return Err(usage(format!(
                "no command or topic is called {asked:?}: `sketchkv help` lists the commands, and the topics are {topics}"
            )));
        }
        output::line(help_of(&self.topic)?)
    }
}

/// What `--help` prints of a command.
fn help_of(command: &[String]) -> Result<String> {
    let words = ["sketchkv"].into_iter().chain(command.iter().map(String::as_str)).chain(["--help"]);
    let help = crate::Arguments::try_parse_from(words).err().context("--help shows help")?;
    Ok(help.render().to_string().trim_end().to_owned())
}

/// The text under a heading.
fn section(heading: &str) -> Option<&'static str> {
    let text = TEXT.split(COMMANDS).next()?;
    let sections = text.split("\n## ").skip(1);
    let found = sections.filter_map(|section| section.split_once('\n')).find(|(name, _)| *name == heading);
    found.map(|(_, text)| text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_a_topic() {
        let text = TEXT.split(COMMANDS).next().unwrap();
        let mut headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let mut topics: Vec<&str> = TOPICS.iter().map(|(_, heading, _)| *heading).collect();
        headings.sort_unstable();
        topics.sort_unstable();
        assert_eq!(headings, topics);
        assert!(TOPICS.iter().all(|(_, heading, _)| section(heading).is_some_and(|text| text.len() > 100)));
    }

    #[test]
    fn no_topic_hides_a_command() {
        let root = crate::Arguments::command();
        let is_command = |name: &str| root.find_subcommand(name).is_some();
        assert!(TOPICS.iter().all(|(name, ..)| !is_command(name)));
    }
}
