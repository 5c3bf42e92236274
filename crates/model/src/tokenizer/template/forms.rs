//! Forms of conversation by name, for models that bring no template.

/// A form that several models were trained with.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) name: &'static str,
    /// Jinja.
    pub(crate) source: &'static str,
    /// The special tokens that it writes: a model without them would read them as text.
    pub(crate) marks: &'static [&'static str],
}

pub(crate) static FORMS: [Form; 3] = [
    Form {
        name: "chatml",
        source: "\
{%- for message in messages -%}
{{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}",
        marks: &["<|im_start|>", "<|im_end|>"],
    },
    // Gemma knows no system role: what it is told first goes before the first question.
    Form {
        name: "gemma",
        source: "\
{{- bos_token -}}
{%- set told = namespace(first='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set told.first = message.content ~ '\\n\\n' -%}
{%- else -%}
{{- '<start_of_turn>' ~ ('model' if message.role == 'assistant' else message.role) ~ '\\n' -}}
{{- told.first ~ (message.content | trim) ~ '<end_of_turn>\\n' -}}
{%- set told.first = '' -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}",
        marks: &["<start_of_turn>", "<end_of_turn>"],
    },
    Form {
        name: "llama3",
        source: "\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' ~ (message.content | trim) ~ '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}",
        marks: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChatMessage, ChatRequest, ChatTemplate};

    #[test]
    fn the_forms_are_as_their_models_were_trained() {
        let messages = [
            ChatMessage::new("system", "Be brief."),
            ChatMessage::new("user", "Hello"),
            ChatMessage::new("assistant", "Hi"),
            ChatMessage::new("user", " Bye "),
        ];
        let request = ChatRequest::new(&messages).answer(true);
        let wanted = [
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n\
             <|im_start|>user\n Bye <|im_end|>\n<|im_start|>assistant\n",
            "<s><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n<start_of_turn>model\nHi<end_of_turn>\n\
             <start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n\
             Hello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ];
        for (form, wanted) in FORMS.iter().zip(wanted) {
            let template = ChatTemplate::new(form.source.into(), "<s>".into(), "</s>".into());
            assert_eq!(template.render(&request).unwrap(), wanted, "{}", form.name);
        }
    }
}
