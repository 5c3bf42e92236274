use super::{data::ModelResults, escape::escape};

const STYLE: &str = include_str!("style.css");
const SCRIPTS: [&str; 2] = [include_str!("copy.js"), include_str!("sort.js")];

/// The whole file around `body`.
pub(super) fn page(models: &[ModelResults<'_>], body: &str) -> String {
    let names = escape(&models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", "));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\">\
         <title>KV caches of {names}</title><style>{STYLE}</style></head>\n\
         <body><a class=\"skip\" href=\"#content\">Skip to the answer</a><main id=\"content\" tabindex=\"-1\">\
         <h1>Which KV cache?</h1>{}\n{body}</main>\n<script>{}</script></body></html>\n",
        contents(models),
        SCRIPTS.concat()
    )
}

/// Links to the models, where there are several.
fn contents(models: &[ModelResults<'_>]) -> String {
    if models.len() < 2 {
        return String::new();
    }
    let links: Vec<String> = models
        .iter()
        .map(|model| format!("<li><a href=\"#{}\">{}</a></li>", model.id("model"), escape(&model.name)))
        .collect();
    format!("<nav aria-label=\"Models\"><ul>{}</ul></nav>", links.concat())
}
