//! The report looked at in a real browser: on three screens, in both colour schemes, and on paper.

use super::browser::{Browser, Screen, Tab};
use std::{fs, path::Path};

const SCREENS: [Screen; 4] = [
    Screen { scheme: "light", width: 360, height: 740 },
    Screen { scheme: "dark", width: 1280, height: 800 },
    Screen { scheme: "light", width: 1280, height: 800 },
    Screen { scheme: "dark", width: 1920, height: 1080 },
];

/// Within the margins of A4, in pixels of 1/96 inch.
const PAPER: (u32, f64) = (703, 1032.0);

const CHECKS: &str = concat!(include_str!("../contrast.js"), include_str!("../report_checks.js"));

/// Looks at `page`. `SKETCHKV_KEEP_REPORT` names a folder that keeps it, its pictures and its print.
pub(crate) fn look_at(name: &str, page: &str) {
    let Some(mut browser) = Browser::start() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("SKETCHKV_KEEP_REPORT");
    let folder = kept.as_ref().map_or(temporary.path(), Path::new);
    let file = folder.join(format!("{name}.html"));
    fs::write(&file, page).unwrap();
    let url = format!("file://{}", fs::canonicalize(&file).unwrap().display());
    for screen in SCREENS {
        let tab = browser.open(&url, screen);
        let picture = browser.picture(&tab);
        let Screen { scheme, width, .. } = screen;
        fs::write(folder.join(format!("{name}-{width}-{scheme}.png")), &picture).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 50_000, "{} bytes", picture.len());
        assert_eq!(browser.evaluate(&tab, CHECKS), "passed", "{name}, {screen:?}");
        assert!(browser.faults().is_empty(), "{:?}", browser.faults());
    }
    let tab = browser.open(&url, SCREENS[1]);
    let pdf = browser.print(&tab);
    fs::write(folder.join(format!("{name}.pdf")), &pdf).unwrap();
    check_print(&mut browser, &tab, &pdf);
}

/// Nothing is wider than the paper, and pages are on average three quarters full.
fn check_print(browser: &mut Browser, tab: &Tab, pdf: &[u8]) {
    const IS_PAGE: &[u8] = b"/Type /Page\n";
    let (width, height) = PAPER;
    browser.lay_out_for_print(tab, width);
    let wide = "[...document.querySelectorAll('table, svg, pre, p')].filter((e) => e.getBoundingClientRect().right > \
                innerWidth + 1).map((e) => e.outerHTML.slice(0, 200))";
    assert_eq!(browser.evaluate(tab, wide), serde_json::json!([]));
    let length = browser.evaluate(tab, "document.documentElement.scrollHeight").as_f64().unwrap();
    let pages = pdf.windows(IS_PAGE.len()).filter(|window| *window == IS_PAGE).count();
    let least = length / height;
    assert!(pages > 0 && (pages as f64) < 1.0 + least / 0.75, "{pages} pages for {least:.1}");
}
