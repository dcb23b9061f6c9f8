"""Models and tokenizers for training, from the policy that a run begins with, and back into a folder."""

import warnings
from pathlib import Path

import torch
import transformers
from django.conf import settings

from annotate.errors import Invalid
from annotate.models import Policy
from annotate.recipes import Options
from worker.engines import loading, templates
from worker.engines.base import LoadError

LORA_TARGETS = "all-linear"
"""As QLoRA found to be needed to reach full fine-tuning (Dettmers et al. 2023, arXiv 2305.14314)."""


def source_of(policy: Policy) -> dict:
    """Where transformers finds a policy's model. Raises Invalid where what was trained here is gone."""
    local = settings.BOTHSIDES_HOME / "models" / policy.location
    # The hub may have another model of that name.
    if policy.run_id is not None and not local.is_dir():
        raise Invalid(f"Policy {policy.name} cannot be loaded: it was trained here, and its folder {local} is gone.")
    revision = {"revision": policy.revision} if policy.revision else {}
    return {"pretrained_model_name_or_path": str(local) if local.is_dir() else policy.location} | revision


def load(
    policy: Policy, make: type = transformers.AutoModelForCausalLM, **how
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """A policy's model, by the transformers class `make`, and its tokenizer, which pads.

    The tokenizer's chat template has the model think or not as the policy says, where nobody chooses.
    In float32: optimisers lose small steps in anything less, and on a GPU the passes run in bfloat16 all the same.
    Raises Invalid where it cannot be loaded or has no chat template.
    """
    source = source_of(policy)
    _say_only_what_went_wrong()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model, info = make.from_pretrained(**source, dtype=torch.float32, output_loading_info=True, **how)
    # Whatever transformers and its file formats raise; all of it means the same here.
    except Exception as error:
        raise Invalid(f"Policy {policy.name} cannot be loaded: {loading.in_one_line(error)}") from error
    writes = make is transformers.AutoModelForCausalLM
    # What a classifier has in place of the head that writes words is not there yet.
    lost = [name for name in info["missing_keys"] if writes or name.startswith(f"{model.base_model_prefix}.")]
    if lost:
        raise Invalid(f"Policy {policy.name} cannot be loaded: it lacks weights: {', '.join(sorted(lost)[:3])} …")
    if not tokenizer.chat_template:
        raise Invalid(f"Policy {policy.name} has no chat template, so that no conversation can be given to it.")
    if policy.thinking:
        try:
            templates.choose(tokenizer, policy.thinking)
        except LoadError as error:
            raise Invalid(f"Policy {policy.name} cannot be trained: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def pad_apart(
    model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase, ends: set[int]
) -> None:
    """Pad with a token that no text ends with: the libraries find the end of a text as its last token that does not
    pad, and many tokenizers pad with the end of a turn."""
    wanted = [tokenizer.pad_token, *tokenizer.all_special_tokens, *tokenizer.get_vocab()]
    tokenizer.pad_token = next(one for one in wanted if one and tokenizer.convert_tokens_to_ids(one) not in ends)
    model.config.pad_token_id = tokenizer.pad_token_id


def with_lora(model: transformers.PreTrainedModel, options: Options, task: str) -> torch.nn.Module:
    """The model with adapters that are trained in its place, where the options want them; `task` is peft's name."""
    if not options.lora_rank:
        return model
    import peft

    # Adapters begin at random.
    transformers.set_seed(options.seed)
    kept = {"modules_to_save": ["score"]} if task == "SEQ_CLS" else {}
    config = peft.LoraConfig(
        task_type=task, r=options.lora_rank, lora_alpha=2 * options.lora_rank, target_modules=LORA_TARGETS, **kept
    )
    return peft.get_peft_model(model, config)


def save(model: torch.nn.Module, tokenizer: transformers.PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a whole model into an empty folder: adapters are merged into the weights, so that any engine loads it."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _say_only_what_went_wrong() -> None:
    """Leave out what transformers tells of itself and of how libraries call each other, which no reader can mend."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def arguments(options: Options) -> dict:
    """What TRL's configurations have in common, from our options."""
    on_gpu = torch.cuda.is_available()
    return {
        "seed": options.seed,
        "data_seed": options.seed,
        "num_train_epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "per_device_train_batch_size": options.at_once,
        # The library takes the mean over batches, whose last may be a small one: of single examples it is exact.
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": options.batch_size // options.at_once,
        "warmup_steps": options.warm_up,
        "lr_scheduler_type": "cosine",
        "save_strategy": "steps",
        "save_steps": options.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "use_cpu": not (on_gpu or torch.backends.mps.is_available()),
        "gradient_checkpointing": on_gpu,
    }
