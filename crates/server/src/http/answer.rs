//! From a request to a job, and from a job to its events.

use super::{App, slots::check_session, text::too_long};
use crate::{
    api::{ApiError, Common, ResponseFormat, StreamOptions, Usage, now, random},
    engine::{Event, Job, PromptTokens},
};
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use sketchkv_engine::{Constraint, Finish, GenerateOptions};
use sketchkv_model::{ModelError, Sampler};
use std::{convert::Infallible, pin::Pin, time::Duration, time::Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Events that may wait for a slow reader; then its answer waits.
const EVENTS: usize = 256;

/// The events of a request's jobs.
pub(crate) struct Events {
    stream: Pin<Box<dyn Stream<Item = (usize, Event)> + Send>>,
    /// Jobs that are not over.
    left: usize,
    used: Usage,
}

/// What comes next.
pub(crate) enum Next {
    /// An event of the job of this number.
    Event(usize, Event),
    /// All jobs are over; what they used together.
    Over(Usage),
}

impl Events {
    /// What comes next. Nothing does after the end, or a failure.
    ///
    /// # Errors
    /// When a job failed, or the engine is gone.
    pub(crate) async fn next(&mut self) -> Result<Next, ApiError> {
        loop {
            match self.stream.next().await {
                Some((_, Event::Failed(error))) => return Err(error),
                Some((_, Event::Over(used))) => {
                    self.used.add(*used);
                    self.left -= 1;
                    if self.left == 0 {
                        return Ok(Next::Over(std::mem::take(&mut self.used)));
                    }
                }
                Some((number, event)) => return Ok(Next::Event(number, event)),
                None => return Err(ApiError::stopping()),
            }
        }
    }
}

/// What a request wants, its prompts aside.
pub(crate) struct Wanted {
    pub(crate) options: GenerateOptions,
    pub(crate) logprobs: Option<usize>,
    pub(crate) echo: bool,
    pub(crate) since: Instant,
}

/// The options of an answer, as far as requests have them in common.
pub(crate) fn options(
    app: &App,
    common: &Common<'_>,
    max_tokens: Option<usize>,
    constraint: Option<Constraint>,
) -> Result<GenerateOptions, ApiError> {
    Ok(GenerateOptions {
        max_tokens: max_tokens.into_iter().chain(app.settings.max_tokens).min(),
        stop: common.stops()?,
        ignore_end: common.ignore_eos.unwrap_or(false),
        constraint,
        ..GenerateOptions::default()
    })
}

/// What an answer has to be, if it has to be anything; `calls` is the grammar of calls that must come.
pub(crate) fn constraint(
    app: &App,
    common: &Common<'_>,
    format: Option<&ResponseFormat>,
    calls: Option<&str>,
) -> Result<Option<Constraint>, ApiError> {
    let (grammar, regex) = (calls.or(common.grammar), common.regex);
    let format = format.filter(|format| !matches!(format, ResponseFormat::Text));
    if usize::from(format.is_some()) + usize::from(grammar.is_some()) + usize::from(regex.is_some()) > 1 {
        return Err(ApiError::bad(
            "give one of response_format, grammar, regex and tools to call: an answer keeps to one",
        ));
    }
    let wrong = |param: &'static str| {
        move |error: sketchkv_engine::EngineError| ApiError::param(param, error.to_string())
    };
    Ok(match (format, grammar, regex) {
        (Some(ResponseFormat::JsonSchema { json_schema }), ..) => {
            Some(grammars(app)?.json_schema(&json_schema.schema).map_err(wrong("response_format"))?)
        }
        (Some(ResponseFormat::JsonObject { schema: Some(schema) }), ..) => {
            Some(grammars(app)?.json_schema(schema).map_err(wrong("response_format"))?)
        }
        (Some(_), ..) => Some(grammars(app)?.json_object().map_err(wrong("response_format"))?),
        (None, Some(grammar), _) => Some(grammars(app)?.lark(grammar).map_err(wrong("grammar"))?),
        (None, None, Some(regex)) => Some(grammars(app)?.regex(regex).map_err(wrong("regex"))?),
        (None, None, None) => None,
    })
}

/// The grammars over the model's tokens.
pub(crate) fn grammars(app: &App) -> Result<&sketchkv_engine::Grammars, ApiError> {
    let made = app
        .grammars
        .get_or_init(|| sketchkv_engine::Grammars::new(&app.model).map_err(|error| error.to_string()));
    made.as_ref().map_err(|error| ApiError::bad(error.clone()))
}

/// Hands the jobs of a request to the engine; waits for the first event, so that what cannot begin is refused with a status of
/// its own.
pub(crate) async fn submit(
    app: &App,
    common: &Common<'_>,
    prompts: Vec<PromptTokens>,
    wanted: Wanted,
) -> Result<Events, ApiError> {
    // A share is one of the context that the server has, the same for all requests: states and sessions stay of use to others.
    let spec = common.spec(&app.settings.kv)?.for_context(&app.model.cache_shape(), app.about.context);
    let sampling = common.sampling(app.model.tokenizer())?;
    Sampler::new(sampling.clone()).map_err(of_sampling)?;
    let choices = common.choices()?;
    if let Some(session) = common.session {
        check_session(session)?;
        if prompts.len() > 1
            || choices > 1
            || wanted.echo
            || prompts.iter().any(|prompt| prompt.text.is_none())
        {
            let message = "a session goes on with one prompt, given as text, by one answer, without an echo";
            return Err(ApiError::param("session", message));
        }
    }
    let context = app.about.context;
    for prompt in &prompts {
        let length = prompt.tokens.len();
        if length == 0 {
            return Err(ApiError::bad("the prompt is empty: give at least one token to go on from"));
        }
        if length + 1 > context {
            return Err(too_long(length.to_string(), context));
        }
    }
    let mut streams = vec![];
    for (number, prompt) in prompts.into_iter().enumerate() {
        let (events, heard) = mpsc::channel(EVENTS);
        let room = context - prompt.tokens.len();
        let max_tokens = Some(wanted.options.max_tokens.unwrap_or(room).min(room));
        app.engine.submit(Job {
            prompt,
            spec: spec.clone(),
            names_spec: common.kv.is_some(),
            sampling: sampling.clone(),
            options: GenerateOptions { max_tokens, ..wanted.options.clone() },
            choices,
            logprobs: wanted.logprobs,
            echo: wanted.echo,
            session: common.session.map(str::to_owned),
            reports_kv: common.stream_options.and_then(|options| options.include_kv).unwrap_or(false),
            since: wanted.since,
            deadline: wanted.since + app.settings.timeout,
            events,
        })?;
        streams.push(ReceiverStream::new(heard).map(move |event| (number, event)));
    }
    let left = streams.len();
    let mut events = Box::pin(stream::select_all(streams));
    match events.next().await {
        Some((_, Event::Failed(error))) => Err(error),
        Some(first) => {
            Ok(Events { stream: Box::pin(stream::iter([first]).chain(events)), left, used: Usage::default() })
        }
        None => Err(ApiError::stopping()),
    }
}

/// A parameter of the sampling that is out of range, under the name that it has in a request.
fn of_sampling(error: ModelError) -> ApiError {
    const FIELDS: [(&str, &str); 7] = [
        ("temperature", "temperature"),
        ("top-p", "top_p"),
        ("min-p", "min_p"),
        ("repetition penalty", "repetition_penalty"),
        ("presence penalty", "presence_penalty"),
        ("frequency penalty", "frequency_penalty"),
        ("logit bias", "logit_bias"),
    ];
    let message = error.to_string();
    let field = FIELDS.iter().find(|(words, _)| message.starts_with(words)).map(|&(_, field)| field.into());
    ApiError { param: field, ..ApiError::from(error) }
}

/// What OpenAI calls the end of an answer.
pub(crate) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::End | Finish::Stop => "stop",
        Finish::Length | Finish::Context | Finish::Interrupted => "length",
    }
}

/// What all chunks of an answer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

impl Heading {
    /// A new one; `kind` begins its id, as `chatcmpl-`.
    pub(crate) fn new(app: &App, kind: &str) -> Self {
        Heading { id: format!("{kind}{:016x}", random()), created: now(), model: app.about.id.clone() }
    }
}

/// What a stream says beside the answer.
pub(crate) fn stream_options(common: &Common<'_>) -> Result<Option<StreamOptions>, ApiError> {
    match (common.stream.unwrap_or(false), common.stream_options) {
        (true, options) => Ok(Some(options.unwrap_or_default())),
        (false, None) => Ok(None),
        (false, Some(_)) => {
            Err(ApiError::param("stream_options", "stream_options are for streams: set stream to true"))
        }
    }
}

/// An event of a stream.
pub(crate) fn event(data: &impl Serialize) -> sse::Event {
    // All of these have string keys, so they can be written.
    sse::Event::default().json_data(data).unwrap_or_default()
}

/// A stream of events, kept alive while nothing comes.
pub(crate) fn sse<S>(stream: S) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>>
where
    S: Stream<Item = sse::Event> + Send + 'static,
{
    Sse::new(stream.map(Ok)).keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))
}
