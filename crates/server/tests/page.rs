//! The page in a real browser, over a real server.

#[path = "../../eval/tests/common/browser.rs"]
mod browser;
mod common;

use browser::{Browser, Screen};
use common::*;
use serde_json::Value;
use sketchkv_engine::Source;

const CHECKS: &str = concat!(include_str!("../../eval/tests/contrast.js"), include_str!("page/checks.js"));

/// Runs the checks on a page; gives what they say.
fn check(browser: &mut Browser, url: &str, scheme: &'static str, width: u32) -> Value {
    let tab = browser.open(url, Screen { scheme, width, height: 800 });
    let mut verdict = browser.evaluate(&tab, CHECKS);
    while verdict == "reload" {
        browser.reload(&tab);
        verdict = browser.evaluate(&tab, CHECKS);
    }
    let faults = browser.faults();
    assert!(faults.is_empty(), "{faults:?}");
    verdict
}

#[test]
fn the_page_talks_on_every_screen() {
    let Some(mut browser) = Browser::start() else { return };
    let auto = || sketchkv_server::Settings { kv: "auto".parse().unwrap(), ..settings() };
    let base = Server::start(auto());
    assert_eq!(check(&mut browser, &base.url("/"), "light", 1280), "passed", "a base model");
    let Ok(source) = Source::find("smollm2-135m") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "smollm2-135m is missing");
        return;
    };
    let chat = Server::of(move || source.load(&options()).unwrap(), auto());
    for (scheme, width) in [("light", 1280), ("dark", 360)] {
        assert_eq!(check(&mut browser, &chat.url("/"), scheme, width), "passed", "{scheme}, {width} px");
    }
}
