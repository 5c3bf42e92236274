//! The modules of this crate lie in layers: none imports one above it.

use std::path::Path;

/// From the bottom up. What stands in one row does not know the others of the row.
const LAYERS: &[&[&str]] = &[
    &["error", "ledger", "profile", "state"],
    &["method", "shape"],
    &["store"],
    &["format", "grading"],
    &["page"],
    &["context"],
    &["means"],
    &["keep", "refine", "tail", "read", "budget"],
    &["registry", "chosen"],
    &["spec"],
    &["judgement", "slots"],
    &["head"],
    &["plan"],
    &["cost", "attend"],
    &["stakes"],
    &["admit"],
    &["allot", "contest", "probe"],
    &["workspace"],
    &["cache"],
    &["guess"],
    &["cap", "fit", "forecast", "holding", "pass", "relearn", "save", "trial"],
];

/// Folders of methods.
const METHODS: &[&str] = &["keep", "refine", "store", "tail", "read", "budget"];

/// All that methods may know of this crate.
const SEEN: &[&str] = &["context", "method", "shape", "state", "means", "error"];

fn rank(module: &str) -> usize {
    let at = LAYERS.iter().position(|row| row.contains(&module));
    at.unwrap_or_else(|| panic!("module {module} has no layer: give it one here and in docs/design.md"))
}

/// Where a name that lib.rs exports lives.
fn home(name: &str) -> &str {
    match name {
        "CacheError" => "error",
        "CacheShape" | "HeadScorer" | "LayerShape" | "OutputProjection" | "Rotation" | "Scorer"
        | "Sensitivity" => "shape",
        "Ledger" => "ledger",
        "AttentionWorkspace" => "workspace",
        "Reader" | "Writer" | "StateError" => "state",
        "Cache" | "Slots" => "cache",
        "Pass" | "PausedPass" => "pass",
        "Spec" | "Cap" => "spec",
        "Registry" => "registry",
        other => other,
    }
}

/// Modules of this crate that a file names, outside of its tests.
fn imports(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod").next().unwrap_or(text);
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = vec![];
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 1;
                let end = list.find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth == 0
                });
                list[..end.unwrap_or(list.len())].to_owned()
            }
            None => rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned(),
        };
        let mut depth = 0;
        let mut word = String::new();
        for c in list.chars().chain([',']) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    let first = word.trim().split("::").next().unwrap_or("").to_owned();
                    found.extend((!first.is_empty()).then_some(first));
                    word.clear();
                }
                _ if depth == 0 => word.push(c),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn no_module_imports_one_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    for entry in std::fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.push(path);
        }
    }
    let mut seen = 0;
    for path in files {
        let inner = path.strip_prefix(&source).unwrap();
        let module = inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" || path.ends_with("tests.rs") {
            continue;
        }
        for import in imports(&std::fs::read_to_string(&path).unwrap()) {
            let import = home(&import);
            seen += 1;
            let fine = import == module || rank(import) < rank(module);
            assert!(
                fine || import == "registry" && module == "chosen",
                "{} imports {import}",
                inner.display()
            );
            assert!(
                !METHODS.contains(&module) || import == module || SEEN.contains(&import),
                "{} imports {import}, which is no method's business",
                inner.display()
            );
        }
    }
    assert!(seen > 100, "only {seen} imports were found");
}
