//! A conversation handed to the engine, whichever of the two shapes it came in.

use super::{
    App,
    answer::{self, Events, Wanted},
    template::Rendering,
    text::prompt_tokens,
};
use crate::{
    api::{ApiError, ChatRequest, Common, Message},
    engine::PromptTokens,
    tools::{Reader, ToolFormat, ToolUse},
};
use std::{sync::Arc, time::Instant};

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
    let several = request.parallel_tool_calls.unwrap_or(true);
    let tools = request.tools.as_deref().unwrap_or_default();
    let choice =
        ToolUse::of(app.tools.as_ref(), &app.about.id, tools, request.tool_choice.as_ref(), several)?;
    let rendering = Rendering {
        messages: &request.messages,
        tools: choice.shown,
        arguments: request.chat_template_kwargs.as_ref(),
        answer: true,
        parse_special: request.parse_special.unwrap_or(false),
    };
    let text = rendering.render(app)?;
    let tokens = prompt_tokens(&text, app.about.context, |text| app.model.tokenizer().encode(text))?;
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

/// What a handler needs of a conversation beyond its events.
pub(crate) fn request_of(messages: Vec<Message>, common: &Common<'_>) -> ChatRequest {
    ChatRequest {
        messages,
        model: common.model.map(str::to_owned),
        stream: common.stream,
        stream_options: common.stream_options,
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
