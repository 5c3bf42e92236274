//! The page at `/`: in the program, and nothing loaded from elsewhere.

use super::App;
use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the page, by their paths.
macro_rules! files {
    ($($name:literal)*) => { [$((concat!("/", $name), include_str!(concat!("../../page/", $name)))),*] };
}
const FILES: [(&str, &str); 12] = files!(
    "index.html" "style.css" "app.js" "answer.js" "cache.js" "conversation.js" "inline.js" "markdown.js" "server.js"
    "settings.js" "transcript.js" "words.js"
);

/// Routes to the files of the page.
pub(crate) fn routes() -> Router<Arc<App>> {
    let mut router = Router::new().route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }));
    for (path, text) in FILES {
        let (path, kind) = match path.rsplit_once('.') {
            Some((_, "js")) => (path, "text/javascript; charset=utf-8"),
            Some((_, "css")) => (path, "text/css; charset=utf-8"),
            _ => ("/", "text/html; charset=utf-8"),
        };
        router = router.route(path, get(move || file(kind, text)));
    }
    router
}

async fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
