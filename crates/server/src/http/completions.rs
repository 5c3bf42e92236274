//! `/v1/completions`: texts that go on.

use super::{
    App,
    answer::{self, Events, Heading, Next, Wanted},
    body::Body,
    text::{check_tokens, prompt_tokens, spelling},
};
use crate::{
    api::{
        ApiError, CompletionAnswer, CompletionChoice, CompletionLogprobs, CompletionRequest, Prompt,
        ResponseFormat, StreamOptions, Usage,
    },
    engine::{Event, PromptTokens},
};
use async_stream::stream;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response, sse},
};
use futures_util::Stream;
use sketchkv_model::{Model, TokenLogprobs};
use std::{collections::BTreeMap, sync::Arc, time::Instant};

/// Tokens of an answer unless it says how many.
const USUAL_TOKENS: usize = 16;
/// Prompts of a request.
const MOST_PROMPTS: usize = 256;

#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "text",
    request_body = CompletionRequest,
    responses(
        (status = 200, body = CompletionAnswer, description = "The answers; with stream, events of them, then [DONE]"),
        crate::api::Refusals,
    )
)]
/// Goes on with texts.
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    Body(request): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let since = Instant::now();
    let common = request.common();
    common.check_model(&app.about.id)?;
    check(&request)?;
    let (options, choices) = (answer::stream_options(&common)?, common.choices()?);
    let request = Arc::new(request);
    let of_work = request.clone();
    let (prompts, wanted) = app.work(move |app| prepare(app, &of_work, since)).await?;
    let echo = request.echo.unwrap_or(false);
    let texts = Texts::new(&app.model, &prompts, choices, echo, request.logprobs.is_some());
    let events = answer::submit(&app, &request.common(), prompts, wanted).await?;
    let heading = Heading::new(&app, "cmpl-");
    match options {
        Some(options) => Ok(answer::sse(stream_of(heading, options, texts, events)).into_response()),
        None => Ok(Json(whole(heading, texts, events).await?).into_response()),
    }
}

/// What is asked that is not done here.
fn check(request: &CompletionRequest) -> Result<(), ApiError> {
    let n = request.n.unwrap_or(1);
    if request.best_of.is_some_and(|best| best > n) {
        return Err(ApiError::param("best_of", "best_of is n at most: this server chooses no best one"));
    }
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::param(
            "suffix",
            "suffix: this server goes on with texts, and does not fill them in",
        ));
    }
    if request.logprobs.is_some_and(|top| top > 20) {
        return Err(ApiError::param("logprobs", "logprobs is 20 at most"));
    }
    Ok(())
}

/// The prompts as tokens, and what is wanted of them.
fn prepare(
    app: &App,
    request: &CompletionRequest,
    since: Instant,
) -> Result<(Vec<PromptTokens>, Wanted), ApiError> {
    let tokenizer = app.model.tokenizer();
    let of_text = |text: &String| {
        let tokens = prompt_tokens(text, app.about.context, |text| tokenizer.encode_prompt(text))?;
        Ok(PromptTokens { tokens, text: Some(text.clone()) })
    };
    let of_tokens = |tokens: &Vec<u32>| {
        check_tokens("prompt", tokens, app.model.config().vocabulary)?;
        Ok(PromptTokens { tokens: tokens.clone(), text: None })
    };
    let count = match &request.prompt {
        Some(Prompt::Texts(texts)) => texts.len(),
        Some(Prompt::Several(several)) => several.len(),
        _ => 1,
    };
    if count == 0 || count > MOST_PROMPTS {
        return Err(ApiError::param("prompt", format!("{count} prompts: give 1 to {MOST_PROMPTS}")));
    }
    let prompts: Vec<PromptTokens> = match &request.prompt {
        None => return Err(ApiError::param("prompt", "prompt is missing: the text to go on with")),
        Some(Prompt::Text(text)) => vec![of_text(text)?],
        Some(Prompt::Texts(texts)) => texts.iter().map(of_text).collect::<Result<_, ApiError>>()?,
        Some(Prompt::Tokens(tokens)) => vec![of_tokens(tokens)?],
        Some(Prompt::Several(several)) => several.iter().map(of_tokens).collect::<Result<_, ApiError>>()?,
    };
    let schema =
        request.json_schema.clone().map(|schema| ResponseFormat::JsonObject { schema: Some(schema) });
    let format = request.response_format.as_ref().or(schema.as_ref());
    let constraint = answer::constraint(app, &request.common(), format, None)?;
    let max_tokens = Some(request.max_tokens.unwrap_or(USUAL_TOKENS));
    let options = answer::options(app, &request.common(), max_tokens, constraint)?;
    let echo = request.echo.unwrap_or(false) && request.logprobs.is_some();
    Ok((prompts, Wanted { options, logprobs: request.logprobs, echo, since }))
}

/// The answers as they come, echoes before them.
struct Texts {
    model: Arc<Model>,
    choices: usize,
    prompts: Vec<EchoedPrompt>,
    logprobs: bool,
    echo: bool,
    /// Characters of each answer so far, the echo's with them.
    lengths: Vec<usize>,
    begun: Vec<bool>,
}

struct EchoedPrompt {
    tokens: Vec<u32>,
    text: String,
    /// Of each token but the first.
    logprobs: Vec<TokenLogprobs>,
}

impl Texts {
    fn new(model: &Arc<Model>, prompts: &[PromptTokens], choices: usize, echo: bool, logprobs: bool) -> Self {
        let echoed = |prompt: &PromptTokens| {
            let text = || prompt.text.clone().unwrap_or_else(|| model.tokenizer().decode(&prompt.tokens));
            let (tokens, text) = if echo { (prompt.tokens.clone(), text()) } else { Default::default() };
            EchoedPrompt { tokens, text, logprobs: vec![] }
        };
        let count = prompts.len() * choices;
        Texts {
            model: model.clone(),
            choices,
            prompts: prompts.iter().map(echoed).collect(),
            logprobs,
            echo,
            lengths: vec![0; count],
            begun: vec![false; count],
        }
    }

    /// What comes of an event, if anything does; with what the cache takes.
    fn take(&mut self, number: usize, event: Event) -> Option<(CompletionChoice, Option<crate::api::Kv>)> {
        let (index, text, tokens, kv, finish) = match event {
            Event::Prompt(logprobs) => {
                self.prompts[number].logprobs.extend(logprobs);
                return None;
            }
            Event::Text { choice, text, tokens, kv } => {
                (number * self.choices + choice, text, tokens, kv, None)
            }
            Event::Done { choice, finish } => (
                number * self.choices + choice,
                String::new(),
                vec![],
                None,
                Some(answer::finish_reason(finish)),
            ),
            Event::Over(_) | Event::Failed(_) => return None,
        };
        let mut piece = CompletionChoice { index, finish_reason: finish, ..CompletionChoice::default() };
        let mut logprobs = CompletionLogprobs::default();
        if self.echo && !std::mem::replace(&mut self.begun[index], true) {
            let prompt = &self.prompts[number];
            piece.text.push_str(&prompt.text);
            let known = std::iter::once(None).chain(prompt.logprobs.iter().map(Some));
            for (&token, known) in prompt.tokens.iter().zip(known).filter(|_| self.logprobs) {
                self.lengths[index] = self.enter(&mut logprobs, token, known, self.lengths[index]);
            }
        }
        for chosen in &tokens {
            self.lengths[index] =
                self.enter(&mut logprobs, chosen.token, chosen.logprobs.as_ref(), self.lengths[index]);
        }
        piece.text.push_str(&text);
        piece.logprobs = (self.logprobs && !logprobs.tokens.is_empty()).then_some(logprobs);
        let says = !piece.text.is_empty() || piece.logprobs.is_some() || finish.is_some() || kv.is_some();
        says.then_some((piece, kv.map(|kv| *kv)))
    }

    /// Enters a token that begins `offset` characters into its text; gives where the next one does.
    fn enter(
        &self,
        logprobs: &mut CompletionLogprobs,
        token: u32,
        known: Option<&TokenLogprobs>,
        offset: usize,
    ) -> usize {
        let spelled = |token| spelling(self.model.tokenizer(), token);
        let text = spelled(token);
        let next = offset + text.chars().count();
        let top = |known: &TokenLogprobs| {
            let mut top = BTreeMap::new();
            for &(token, logprob) in &known.top {
                // Of tokens that are spelled alike, parts of characters for one, the most probable.
                top.entry(spelled(token)).or_insert(logprob);
            }
            top
        };
        logprobs.tokens.push(text);
        logprobs.token_logprobs.push(known.map(|known| known.logprob));
        logprobs.top_logprobs.push(known.map(top));
        logprobs.text_offset.push(offset);
        next
    }
}

/// The answers as they come.
fn stream_of(
    heading: Heading,
    options: StreamOptions,
    mut texts: Texts,
    mut events: Events,
) -> impl Stream<Item = sse::Event> + Send {
    let chunk = move |choices: Vec<CompletionChoice>, usage: Option<Usage>, kv| {
        let Heading { id, created, model } = heading.clone();
        answer::event(&CompletionAnswer { id, object: "text_completion", created, model, choices, usage, kv })
    };
    stream! {
        loop {
            match events.next().await {
                Ok(Next::Event(number, event)) => if let Some((choice, kv)) = texts.take(number, event) {
                    yield chunk(vec![choice], None, kv);
                }
                Ok(Next::Over(usage)) => {
                    if options.include_usage.unwrap_or(false) {
                        yield chunk(vec![], Some(usage), None);
                    }
                    yield sse::Event::default().data("[DONE]");
                    return;
                }
                Err(error) => {
                    yield answer::event(&error.body());
                    return;
                }
            }
        }
    }
}

/// The answers when they are over.
async fn whole(heading: Heading, mut texts: Texts, mut events: Events) -> Result<CompletionAnswer, ApiError> {
    let count = texts.lengths.len();
    let mut choices: Vec<CompletionChoice> =
        (0..count).map(|index| CompletionChoice { index, ..CompletionChoice::default() }).collect();
    let usage = loop {
        match events.next().await? {
            Next::Event(number, event) => {
                if let Some((piece, _)) = texts.take(number, event) {
                    add(&mut choices[piece.index], piece);
                }
            }
            Next::Over(usage) => break Some(usage),
        }
    };
    let Heading { id, created, model } = heading;
    Ok(CompletionAnswer { id, object: "text_completion", created, model, choices, usage, kv: None })
}

/// Adds a piece to an answer.
fn add(choice: &mut CompletionChoice, piece: CompletionChoice) {
    choice.text.push_str(&piece.text);
    choice.finish_reason = piece.finish_reason.or(choice.finish_reason);
    if let Some(more) = piece.logprobs {
        let logprobs = choice.logprobs.get_or_insert_default();
        logprobs.tokens.extend(more.tokens);
        logprobs.token_logprobs.extend(more.token_logprobs);
        logprobs.top_logprobs.extend(more.top_logprobs);
        logprobs.text_offset.extend(more.text_offset);
    }
}
