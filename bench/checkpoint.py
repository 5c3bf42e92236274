"""A pulled model in transformers, for the scripts that set transformers beside the engine."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

TEXT = Path(__file__).resolve().parents[1] / "data" / "persuasion.txt"


def within(venv, package, hint):
    """Runs the script that calls this again in a virtual environment where `package` is not to be had here."""
    python = venv / ("Scripts" if os.name == "nt" else "bin") / "python"
    try:
        __import__(package)
    except ImportError:
        if not python.exists() or os.environ.get("SKETCHKV_IN_VENV"):
            sys.exit(f"{package} is not installed: {hint}")
        os.environ["SKETCHKV_IN_VENV"] = "1"
        os.execv(python, [str(python), *sys.argv])


def load(name):
    """A pulled model with its weights in f32, and its tokenizer."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    models = os.environ.get("SKETCHKV_MODELS", Path.home() / ".local" / "share" / "sketchkv" / "models")
    (file,) = (Path(models) / name).glob("*.gguf")
    source = {"gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **source).eval()
    return model, AutoTokenizer.from_pretrained(file.parent, **source)


def record(note):
    """An attention of transformers by the name of "recording": torch's own, of which `note` is told query, key, value, scaling and options."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def recording(module, query, key, value, mask, dropout=0.0, scaling=None, **others):
        note(query, key, value, scaling, others)
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **others)

    ALL_ATTENTION_FUNCTIONS.register("recording", recording)
    # Without it layers that slide would see all tokens.
    ALL_MASK_ATTENTION_FUNCTIONS.register("recording", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
