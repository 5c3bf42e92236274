//! `/v1/chat/completions`: conversations by the model's template.

use super::{
    App,
    answer::{self, Events, Heading, Next, Wanted},
    body::Body,
    text::spelling,
};
use crate::{
    api::{
        Answer, ApiError, CalledFunction, ChatAnswer, ChatChoice, ChatChunk, ChatLogprobs, ChatRequest,
        ChunkChoice, Common, Delta, FunctionDelta, Logprob, Message, StreamOptions, TokenLogprob, Tool,
        ToolCall, ToolCallDelta, ToolChoice, Usage, random,
    },
    engine::{Chosen, Event, PromptTokens},
    tools::{Read, Reader, ToolFormat},
};
use async_stream::stream;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response, sse},
};
use futures_util::Stream;
use serde::Serialize;
use serde_json::value::RawValue;
use sketchkv_model::Model;
use std::{collections::BTreeMap, sync::Arc, time::Instant};

#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "text",
    request_body = ChatRequest,
    responses(
        (status = 200, body = ChatAnswer, description = "The answer; with stream, events of ChatChunk, then [DONE]"),
        crate::api::Refusals,
    )
)]
/// Goes on with a conversation.
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    let since = Instant::now();
    let options = answer::stream_options(&request.common())?;
    let heading = Heading::new(&app, "chatcmpl-");
    let (choices, talk) = (request.common().choices()?, Talk::begin(&app, request, since).await?);
    let Talk { events, tools, .. } = talk;
    let answers = Answers::new(&app.model, choices, tools);
    match options {
        Some(options) => Ok(answer::sse(stream_of(heading, options, answers, events)).into_response()),
        None => Ok(Json(whole(heading, answers, events).await?).into_response()),
    }
}

/// A conversation that goes on.
pub(crate) struct Talk {
    pub(crate) events: Events,
    /// What reads calls out of the answer, if there are tools.
    pub(crate) tools: Option<Reader>,
}

impl Talk {
    /// Renders the request, and hands it to the engine.
    pub(crate) async fn begin(
        app: &Arc<App>,
        request: ChatRequest,
        since: Instant,
    ) -> Result<Talk, ApiError> {
        request.common().check_model(&app.about.id)?;
        check(&request)?;
        let request = Arc::new(request);
        let of_work = request.clone();
        let (prompt, wanted, tools) = app.work(move |app| prepare(app, &of_work, since)).await?;
        let events = answer::submit(app, &request.common(), vec![prompt], wanted).await?;
        let names = || request.tools.iter().flatten().map(|tool| tool.function.name.clone()).collect();
        Ok(Talk { events, tools: tools.map(|format| Reader::new(format, names())) })
    }
}

/// What is asked that is not done here.
fn check(request: &ChatRequest) -> Result<(), ApiError> {
    if request.messages.is_empty() {
        return Err(ApiError::param("messages", "messages is empty: say something"));
    }
    if request.modalities.as_ref().is_some_and(|modalities| modalities.iter().any(|kind| kind != "text")) {
        return Err(ApiError::param("modalities", "modalities: this server answers by text"));
    }
    if request.top_logprobs.is_some_and(|top| top > 20) {
        return Err(ApiError::param("top_logprobs", "top_logprobs is 20 at most"));
    }
    if request.top_logprobs.is_some() && !request.logprobs.unwrap_or(false) {
        return Err(ApiError::param("top_logprobs", "top_logprobs needs logprobs: true"));
    }
    Ok(())
}

/// The prompt, what is wanted of it, and how calls are read.
fn prepare(
    app: &App,
    request: &ChatRequest,
    since: Instant,
) -> Result<(PromptTokens, Wanted, Option<ToolFormat>), ApiError> {
    let choice = ToolUse::of(app, request)?;
    let rendering = Rendering {
        messages: &request.messages,
        tools: choice.shown,
        arguments: request.chat_template_kwargs.as_ref(),
        answer: true,
        parse_special: request.parse_special.unwrap_or(false),
    };
    let text = rendering.render(app)?;
    let tokens = app.model.tokenizer().encode(&text)?;
    let (common, format) = (request.common(), request.response_format.as_ref());
    let constraint = answer::constraint(app, &common, format, choice.grammar.as_deref())?;
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    let mut options = answer::options(app, &common, max_tokens, constraint)?;
    // Where the mark of a call is a special token, it has to be seen.
    let marker = choice.format.as_ref().map_or("", ToolFormat::marker);
    options.show_special =
        app.model.tokenizer().id(marker).is_some_and(|id| app.model.tokenizer().is_special(id));
    let logprobs = request.logprobs.unwrap_or(false).then(|| request.top_logprobs.unwrap_or(0));
    let wanted = Wanted { options, logprobs, echo: false, since };
    Ok((PromptTokens { tokens, text: Some(text) }, wanted, choice.format))
}

/// What of the tools is shown to the model, and how it may call them.
struct ToolUse<'r> {
    shown: Option<&'r [Tool]>,
    format: Option<ToolFormat>,
    grammar: Option<String>,
}

impl<'r> ToolUse<'r> {
    fn of(app: &App, request: &'r ChatRequest) -> Result<Self, ApiError> {
        let none = ToolUse { shown: None, format: None, grammar: None };
        let tools = request.tools.as_deref().unwrap_or_default();
        let named = match &request.tool_choice {
            Some(ToolChoice::Function { function, .. }) => Some(function.name.as_str()),
            Some(ToolChoice::Mode(mode)) if !matches!(mode.as_str(), "auto" | "none" | "required") => {
                let message = format!("tool_choice {mode:?}: say auto, none, required, or name a function");
                return Err(ApiError::param("tool_choice", message));
            }
            _ => None,
        };
        let mode = match &request.tool_choice {
            Some(ToolChoice::Mode(mode)) => mode.as_str(),
            _ => "auto",
        };
        if tools.is_empty() && (named.is_some() || mode == "required") {
            return Err(ApiError::param("tool_choice", "a tool is to be called, and there are no tools"));
        }
        if tools.is_empty() || mode == "none" {
            return Ok(none);
        }
        let Some(format) = &app.tools else {
            let message =
                format!("the template of {} knows no tools that this server can read", app.about.id);
            return Err(ApiError::param("tools", message));
        };
        if let Some(tool) = tools.iter().find(|tool| tool.r#type != "function") {
            let message = format!("a tool is of type {:?}: only functions are known here", tool.r#type);
            return Err(ApiError::param("tools", message));
        }
        let callable: Vec<&Tool> =
            tools.iter().filter(|tool| named.is_none_or(|name| tool.function.name == name)).collect();
        let grammar = match (named, mode) {
            (Some(name), _) if callable.is_empty() => {
                return Err(ApiError::param("tool_choice", format!("there is no tool {name:?}")));
            }
            (None, "auto") => None,
            _ => Some(
                format.grammar(&callable, request.parallel_tool_calls.unwrap_or(true) && named.is_none())?,
            ),
        };
        Ok(ToolUse { shown: Some(tools), format: Some(format.clone()), grammar })
    }
}

/// What a template is to render.
pub(crate) struct Rendering<'r> {
    pub(crate) messages: &'r [Message],
    pub(crate) tools: Option<&'r [Tool]>,
    pub(crate) arguments: Option<&'r BTreeMap<String, Box<RawValue>>>,
    /// Opens the assistant's turn.
    pub(crate) answer: bool,
    /// Special tokens within what was said count as such.
    pub(crate) parse_special: bool,
}

/// A conversation as templates know it. Its keys are in the order in which models have learned to read them.
#[derive(Serialize)]
struct ForTemplate<'r> {
    messages: Vec<MessageForTemplate<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'r [Tool]>,
    add_generation_prompt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_kwargs: Option<&'r BTreeMap<String, Box<RawValue>>>,
}

#[derive(Serialize)]
struct MessageForTemplate<'r> {
    role: &'r str,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallForTemplate<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'r str>,
}

/// A call whose arguments are an object, as templates want them, and not its text.
#[derive(Serialize)]
struct CallForTemplate<'r> {
    id: &'r str,
    r#type: &'static str,
    function: FunctionForTemplate<'r>,
}

#[derive(Serialize)]
struct FunctionForTemplate<'r> {
    name: &'r str,
    arguments: Box<RawValue>,
}

impl Rendering<'_> {
    /// The text of the conversation.
    pub(crate) fn render(&self, app: &App) -> Result<String, ApiError> {
        let tokenizer = app.model.tokenizer();
        if !tokenizer.has_chat_template() {
            return Err(ApiError::bad(format!(
                "{} brings no chat template: it goes on with texts, at /v1/completions",
                app.about.id
            )));
        }
        let messages = self.messages.iter().map(message_for_template);
        self.tools.unwrap_or_default().iter().try_for_each(Tool::check)?;
        let request = ForTemplate {
            messages: messages.collect::<Result<_, _>>()?,
            tools: self.tools,
            add_generation_prompt: self.answer,
            chat_template_kwargs: self.arguments,
        };
        let request = serde_json::to_string(&request).map_err(|error| ApiError::bad(error.to_string()))?;
        let request = sketchkv_model::ChatRequest::from_json(&request)?;
        let request = if self.parse_special { request } else { request.shielded(tokenizer) };
        Ok(tokenizer.chat_request(&request)?)
    }
}

fn message_for_template(message: &Message) -> Result<MessageForTemplate<'_>, ApiError> {
    let role = match message.role.as_str() {
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        role => {
            let message = format!("a message is by {role:?}: say system, developer, user, assistant or tool");
            return Err(ApiError::param("messages", message));
        }
    };
    let content = match (&message.content, &message.refusal) {
        (Some(content), _) => content.text()?,
        (None, refusal) => refusal.clone().unwrap_or_default(),
    };
    let calls = message.tool_calls.as_deref().unwrap_or_default();
    Ok(MessageForTemplate {
        role,
        content,
        reasoning_content: message.reasoning_content.as_deref(),
        name: message.name.as_deref(),
        tool_calls: calls.iter().map(call_for_template).collect::<Result<_, _>>()?,
        tool_call_id: message.tool_call_id.as_deref(),
    })
}

fn call_for_template(call: &ToolCall) -> Result<CallForTemplate<'_>, ApiError> {
    let CalledFunction { name, arguments } = &call.function;
    let text = if arguments.trim().is_empty() { "{}" } else { arguments };
    let arguments = RawValue::from_string(text.to_owned()).map_err(|error| {
        ApiError::param("messages", format!("the arguments of a call of {name:?} are no JSON: {error}"))
    })?;
    Ok(CallForTemplate {
        id: &call.id,
        r#type: "function",
        function: FunctionForTemplate { name, arguments },
    })
}

/// Answers as they come.
pub(crate) struct Answers {
    model: Arc<Model>,
    choices: Vec<Choice>,
}

/// One of them.
struct Choice {
    reader: Option<Reader>,
    begun: bool,
}

/// What an event brought of an answer.
pub(crate) struct Piece {
    pub(crate) index: usize,
    /// Whether it is the first of its answer.
    pub(crate) first: bool,
    pub(crate) delta: Delta,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
    pub(crate) kv: Option<crate::api::Kv>,
}

impl Answers {
    pub(crate) fn new(model: &Arc<Model>, choices: usize, tools: Option<Reader>) -> Self {
        let choice = || Choice { reader: tools.clone(), begun: false };
        Answers { model: model.clone(), choices: (0..choices).map(|_| choice()).collect() }
    }

    /// What comes of an event, if anything does.
    pub(crate) fn take(&mut self, event: Event) -> Option<Piece> {
        let (index, reads, tokens, kv, finish) = match event {
            Event::Text { choice, text, tokens, kv } => {
                let reads = match &mut self.choices[choice].reader {
                    Some(reader) => reader.push(&text),
                    None if text.is_empty() => vec![],
                    None => vec![Read::Text(text)],
                };
                (choice, reads, tokens, kv, None)
            }
            Event::Done { choice, finish } => {
                let reader = &mut self.choices[choice].reader;
                let reads = reader.as_mut().map(Reader::finish).unwrap_or_default();
                let called = reader.as_ref().is_some_and(|reader| reader.calls() > 0);
                let reason = match answer::finish_reason(finish) {
                    "stop" if called => "tool_calls",
                    reason => reason,
                };
                (choice, reads, vec![], None, Some(reason))
            }
            Event::Prompt(_) | Event::Over(_) | Event::Failed(_) => return None,
        };
        let logprobs = self.logprobs(&tokens);
        if reads.is_empty() && logprobs.is_none() && kv.is_none() && finish.is_none() {
            return None;
        }
        let first = !std::mem::replace(&mut self.choices[index].begun, true);
        Some(Piece {
            index,
            first,
            delta: delta_of(reads),
            logprobs,
            finish_reason: finish,
            kv: kv.map(|kv| *kv),
        })
    }

    fn logprobs(&self, tokens: &[Chosen]) -> Option<ChatLogprobs> {
        let content: Vec<TokenLogprob> = tokens
            .iter()
            .filter_map(|chosen| {
                let said = chosen.logprobs.as_ref()?;
                let top = said.top.iter().map(|&(token, logprob)| self.logprob(token, logprob));
                Some(TokenLogprob {
                    token: self.logprob(chosen.token, said.logprob),
                    top_logprobs: top.collect(),
                })
            })
            .collect();
        (!content.is_empty()).then_some(ChatLogprobs { content })
    }

    fn logprob(&self, token: u32, logprob: f32) -> Logprob {
        let tokenizer = self.model.tokenizer();
        Logprob { token: spelling(tokenizer, token), logprob, bytes: tokenizer.token_bytes(token).to_vec() }
    }
}

/// What was read, as it is streamed.
fn delta_of(reads: Vec<Read>) -> Delta {
    let mut delta = Delta::default();
    for read in reads {
        match read {
            Read::Text(text) => delta.content.get_or_insert_default().get_or_insert_default().push_str(&text),
            Read::Call { index, name } => delta.tool_calls.push(ToolCallDelta {
                index,
                id: Some(format!("call_{:016x}", random())),
                r#type: Some("function"),
                function: FunctionDelta { name: Some(name), arguments: String::new() },
            }),
            Read::Arguments { index, text } => {
                let last = delta.tool_calls.last_mut().filter(|call| call.index == index);
                match last {
                    Some(call) => call.function.arguments.push_str(&text),
                    None => delta.tool_calls.push(ToolCallDelta {
                        index,
                        function: FunctionDelta { name: None, arguments: text },
                        ..ToolCallDelta::default()
                    }),
                }
            }
        }
    }
    delta
}

/// The answer as it comes.
fn stream_of(
    heading: Heading,
    options: StreamOptions,
    mut answers: Answers,
    mut events: Events,
) -> impl Stream<Item = sse::Event> + Send {
    let chunk = move |choices: Vec<ChunkChoice>, usage: Option<Usage>, kv| {
        let Heading { id, created, model } = heading.clone();
        answer::event(&ChatChunk { id, object: "chat.completion.chunk", created, model, choices, usage, kv })
    };
    stream! {
        loop {
            match events.next().await {
                Ok(Next::Event(_, event)) => if let Some(piece) = answers.take(event) {
                    let Piece { index, first, delta, logprobs, finish_reason, kv } = piece;
                    if first {
                        let delta = Delta { role: Some("assistant"), content: Some(None), ..Delta::default() };
                        yield chunk(vec![ChunkChoice { index, delta, logprobs: None, finish_reason: None }], None, None);
                    }
                    yield chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason }], None, kv);
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

/// The answer when it is over.
async fn whole(heading: Heading, mut answers: Answers, mut events: Events) -> Result<ChatAnswer, ApiError> {
    let count = answers.choices.len();
    let mut choices: Vec<ChatChoice> = (0..count)
        .map(|index| ChatChoice {
            index,
            message: Answer { role: "assistant", content: None, tool_calls: vec![], refusal: None },
            logprobs: None,
            finish_reason: "length",
        })
        .collect();
    let usage = loop {
        match events.next().await? {
            Next::Event(_, event) => {
                if let Some(piece) = answers.take(event) {
                    add(&mut choices[piece.index], piece);
                }
            }
            Next::Over(usage) => break usage,
        }
    };
    for choice in choices.iter_mut().filter(|choice| choice.message.tool_calls.is_empty()) {
        choice.message.content.get_or_insert_default();
    }
    let Heading { id, created, model } = heading;
    Ok(ChatAnswer { id, object: "chat.completion", created, model, choices, usage })
}

/// Adds a piece to an answer.
fn add(choice: &mut ChatChoice, piece: Piece) {
    let Answer { content, tool_calls, .. } = &mut choice.message;
    if let Some(text) = piece.delta.content.flatten() {
        content.get_or_insert_default().push_str(&text);
    }
    for call in piece.delta.tool_calls {
        if let (Some(id), Some(name)) = (call.id, call.function.name) {
            let function = CalledFunction { name, arguments: String::new() };
            tool_calls.push(ToolCall { id, r#type: "function".into(), function });
        }
        if let Some(last) = tool_calls.get_mut(call.index) {
            last.function.arguments.push_str(&call.function.arguments);
        }
    }
    if let Some(more) = piece.logprobs {
        choice.logprobs.get_or_insert_default().content.extend(more.content);
    }
    choice.finish_reason = piece.finish_reason.unwrap_or(choice.finish_reason);
}

/// What a handler needs of a conversation beyond its events.
pub(crate) fn request_of(messages: Vec<Message>, common: &Common<'_>) -> ChatRequest {
    ChatRequest {
        messages,
        model: common.model.map(str::to_owned),
        stream: common.stream,
        n: common.n,
        stop: common.stop.cloned(),
        seed: common.seed,
        temperature: common.temperature,
        top_p: common.top_p,
        top_k: common.top_k,
        min_p: common.min_p,
        presence_penalty: common.presence_penalty,
        frequency_penalty: common.frequency_penalty,
        repetition_penalty: common.repetition_penalty,
        logit_bias: common.logit_bias.cloned(),
        ignore_eos: common.ignore_eos,
        grammar: common.grammar.map(str::to_owned),
        regex: common.regex.map(str::to_owned),
        kv: common.kv.map(str::to_owned),
        kv_bytes: common.kv_bytes,
        session: common.session.map(str::to_owned),
        ..ChatRequest::default()
    }
}
