//! The begin and end tokens around a prompt.

use tokenizers::Tokenizer;
use tokenizers::processors::template::TemplateProcessing;

/// Puts the begin and end tokens around a prompt.
pub(super) fn frame(
    inner: &mut Tokenizer,
    begin: Option<(u32, &String)>,
    end: Option<(u32, &String)>,
) -> Result<(), String> {
    if begin.is_none() && end.is_none() {
        inner.with_post_processor(None::<TemplateProcessing>);
        return Ok(());
    }
    let special = |(_, text): (u32, &String)| serde_json::json!({"SpecialToken": {"id": text, "type_id": 0}});
    let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<_> = begin.map(special).into_iter().chain([text]).chain(end.map(special)).collect();
    let tokens: serde_json::Map<_, _> = begin
        .into_iter()
        .chain(end)
        .map(|(id, text)| (text.clone(), serde_json::json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    let json = serde_json::json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": tokens,
    });
    let template: TemplateProcessing = serde_json::from_value(json).map_err(|e| e.to_string())?;
    inner.with_post_processor(Some(template));
    Ok(())
}
