//! Texts and tokens.

use super::{App, body::Body, template::Rendering};
use crate::api::{
    ApiError, DetokenizeRequest, Rendered, TemplateRequest, Text, Token, TokenizeRequest, Tokens,
};
use axum::{Json, extract::State};
use sketchkv_model::{ModelError, Tokenizer};
use std::sync::Arc;

/// A text of more bytes for each token of the context is measured before it is read whole: that takes some two hundred times
/// its bytes.
const USUAL_BYTES: usize = 8;
/// Bytes that are measured at a time.
const PART: usize = 32 << 10;
/// Tokens by which two parts may have more than the whole.
const SEAM: usize = 16;

/// The text of a token; what is no whole character is U+FFFD.
pub(crate) fn spelling(tokenizer: &Tokenizer, token: u32) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned()
}

/// The tokens of a prompt, which `encode` gives; refused as soon as it has more than `context`.
pub(crate) fn prompt_tokens(
    text: &str,
    context: usize,
    encode: impl Fn(&str) -> Result<Vec<u32>, ModelError>,
) -> Result<Vec<u32>, ApiError> {
    if text.len() > context.saturating_mul(USUAL_BYTES) {
        let mut least = 0;
        for part in parts(text) {
            least += encode(part)?.len().saturating_sub(SEAM);
            if least + 1 > context {
                return Err(too_long(format!("more than {least}"), context));
            }
        }
    }
    let tokens = encode(text)?;
    match tokens.len() {
        length if length + 1 > context => Err(too_long(length.to_string(), context)),
        _ => Ok(tokens),
    }
}

/// A text in parts, cut between words where there are any.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let longest = (0..=PART.min(rest.len())).rev().find(|&at| rest.is_char_boundary(at)).unwrap_or(0);
        let word = rest[..longest].rfind(char::is_whitespace).filter(|&at| at > 0);
        let end = if longest == rest.len() { longest } else { word.unwrap_or(longest) };
        let (part, more) = rest.split_at(end);
        rest = more;
        (!part.is_empty()).then_some(part)
    })
}

/// A prompt of so many tokens is refused.
pub(crate) fn too_long(tokens: String, context: usize) -> ApiError {
    let message =
        format!("the prompt has {tokens} tokens, and a text may have {context} with its answer: shorten it");
    ApiError { code: Some("context_length_exceeded"), ..ApiError::bad(message) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_words_and_nothing_is_lost() {
        for text in
            ["é".repeat(PART), "word ".repeat(20_000), " ".repeat(PART + 1), "short".into(), String::new()]
        {
            let found: Vec<&str> = parts(&text).collect();
            assert_eq!(found.concat(), text);
            assert!(found.iter().all(|part| part.len() <= PART));
        }
        assert!(parts(&"word ".repeat(20_000)).skip(1).all(|part| part.starts_with(" word")));
    }

    #[test]
    fn a_text_that_is_far_too_long_is_not_read_to_its_end() {
        let read = std::cell::Cell::new(0);
        let letters = |text: &str| {
            read.set(read.get() + text.len());
            Ok(text.bytes().map(u32::from).collect())
        };
        let refused = prompt_tokens(&"a".repeat(1 << 20), 1000, letters).unwrap_err();
        assert!(refused.code == Some("context_length_exceeded") && read.get() <= PART, "{}", read.get());
        assert_eq!(prompt_tokens("abc", 4, letters).unwrap().len(), 3);
        assert!(prompt_tokens("abcd", 4, letters).is_err());
        // Of few tokens for its bytes it is read whole.
        let lines = |text: &str| Ok(vec![0; text.lines().count()]);
        let text = format!("{}\n", "a".repeat(9999)).repeat(10);
        assert_eq!(prompt_tokens(&text, 20, lines).unwrap().len(), 10);
    }
}
