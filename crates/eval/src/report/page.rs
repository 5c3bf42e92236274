use super::data::escape;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

/// The whole file around `body`.
pub(super) fn page(models: &str, body: &str) -> String {
    let models = escape(models);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\">\
         <title>KV caches of {models}</title><style>{STYLE}</style></head>\n\
         <body><main><h1>Which KV cache?</h1><p class=\"lead\">What bounded caches of {models} take, how fast they are, \
         and what is lost.</p>\n{body}</main>\n<script>{SCRIPT}</script></body></html>\n"
    )
}
