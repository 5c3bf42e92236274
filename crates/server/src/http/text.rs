//! Texts and tokens.

use super::{App, body::Body, template::Rendering};
use crate::api::{
    ApiError, DetokenizeRequest, Rendered, TemplateRequest, Text, Token, TokenizeRequest, Tokens,
};
use axum::{Json, extract::State};
use sketchkv_model::Tokenizer;
use std::sync::Arc;

/// The text of a token; what is no whole character is U+FFFD.
pub(crate) fn spelling(tokenizer: &Tokenizer, token: u32) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned()
}

/// Refuses ids that are none of `vocabulary` tokens.
pub(crate) fn check_tokens(param: &'static str, tokens: &[u32], vocabulary: usize) -> Result<(), ApiError> {
    match tokens.iter().find(|&&token| token as usize >= vocabulary) {
        Some(token) => {
            Err(ApiError::param(param, format!("{token} is no token: ids are below {vocabulary}")))
        }
        None => Ok(()),
    }
}

#[utoipa::path(
    post,
    path = "/tokenize",
    tag = "tokens",
    request_body = TokenizeRequest,
    responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = Tokens, description = "Done"), (status = 400, body = crate::api::ErrorBody, description = "The request is wrong"))
)]
/// The tokens of a text.
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    Body(request): Body<TokenizeRequest>,
) -> Result<Json<Tokens>, ApiError> {
    app.work(move |app| {
        let tokenizer = app.model.tokenizer();
        let Some(text) = request.content.or(request.prompt) else {
            return Err(ApiError::param("content", "content is missing: the text to be tokenized"));
        };
        let ids = match (request.parse_special.unwrap_or(true), request.add_special.unwrap_or(false)) {
            (false, _) => tokenizer.encode_literal(&text)?,
            (true, true) => tokenizer.encode_prompt(&text)?,
            (true, false) => tokenizer.encode(&text)?,
        };
        let count = ids.len();
        let spelled = |id| Token::Spelled { id, piece: spelling(tokenizer, id) };
        let tokens = match request.with_pieces.unwrap_or(false) {
            false => ids.into_iter().map(Token::Id).collect(),
            true => ids.into_iter().map(spelled).collect(),
        };
        Ok(Json(Tokens { tokens, count }))
    })
    .await
}

#[utoipa::path(
    post,
    path = "/detokenize",
    tag = "tokens",
    request_body = DetokenizeRequest,
    responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = Text, description = "Done"), (status = 400, body = crate::api::ErrorBody, description = "The request is wrong"))
)]
/// The text of tokens.
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    Body(request): Body<DetokenizeRequest>,
) -> Result<Json<Text>, ApiError> {
    check_tokens("tokens", &request.tokens, app.model.tokenizer().vocabulary())?;
    app.work(move |app| Ok(Json(Text { content: app.model.tokenizer().decode(&request.tokens) }))).await
}

#[utoipa::path(
    post,
    path = "/apply-template",
    tag = "tokens",
    request_body = TemplateRequest,
    responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = Rendered, description = "Done"), (status = 400, body = crate::api::ErrorBody, description = "The request is wrong"))
)]
/// A conversation by the model's template.
pub(crate) async fn apply_template(
    State(app): State<Arc<App>>,
    Body(request): Body<TemplateRequest>,
) -> Result<Json<Rendered>, ApiError> {
    app.work(move |app| {
        let TemplateRequest { messages, tools, chat_template_kwargs, add_generation_prompt, .. } = request;
        let answer = add_generation_prompt.unwrap_or(true);
        let rendering = Rendering {
            messages: &messages,
            tools: tools.as_deref(),
            arguments: chat_template_kwargs.as_ref(),
            answer,
            // As it was said.
            parse_special: true,
        };
        Ok(Json(Rendered { prompt: rendering.render(app)? }))
    })
    .await
}
