//! `/openapi.json`: what there is, for programs.

use crate::api;
use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

#[derive(OpenApi)]
#[openapi(
    info(title = "sketchkv", description = "Language models inside a KV cache of bounded size, by OpenAI's API"),
    paths(
        super::chat::chat,
        super::completions::completions,
        super::responses::responses,
        super::models::embeddings,
        super::models::models,
        super::models::model,
        super::models::kv,
        super::models::health,
        super::text::tokenize,
        super::text::detokenize,
        super::text::apply_template,
        super::slots::slots,
        super::slots::act,
        super::slots::metrics,
    ),
    components(schemas(api::ChatChunk, api::Action)),
    modifiers(&Keys),
    security(("key" = [])),
    tags(
        (name = "text", description = "Texts that go on"),
        (name = "tokens", description = "Texts and tokens"),
        (name = "server", description = "What there is, and what goes on"),
    )
)]
struct Description;

/// The key that every path takes, but those of the page.
struct Keys;

impl Modify for Keys {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        description.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

/// The description of everything.
pub(crate) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}
