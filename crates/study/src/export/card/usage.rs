//! How to load what was exported: Python, and the two interfaces where they can.

use scumble_nn::files::Family;

use super::{Card, quoted};
use crate::request::Form;

impl Card<'_> {
    pub(super) fn usage(&self, base: &str) -> String {
        let dtype = match self.request.dtype.to_lowercase().as_str() {
            "f16" | "fp16" | "float16" | "half" => "torch.float16",
            "bf16" | "bfloat16" => "torch.bfloat16",
            _ => "torch.float32",
        };
        let named = |name: Option<&std::ffi::OsStr>| {
            name.map_or_else(|| "FILE".into(), |n| n.to_string_lossy().into_owned())
        };
        let (file, stem) = (
            quoted(&named(self.file.file_name())),
            named(self.file.file_stem()),
        );
        let base = quoted(
            &self
                .repository()
                .unwrap_or_else(|| format!("FOLDER OF {base}")),
        );
        let family = self.model.family();
        let pipeline = family.pipeline_class;
        // Without the dtype a folder of mixed ones stays mixed, and does not compute.
        let open = |what: &str| {
            format!("pipe = {pipeline}.from_pretrained({what}, torch_dtype={dtype})\n")
        };
        let python = match self.request.form {
            Form::Diffusers => open("\"THIS FOLDER\""),
            Form::Single => {
                format!(
                    "pipe = {pipeline}.from_single_file({file}, config={base}, torch_dtype={dtype})\n"
                )
            }
            Form::Lora => format!("{}pipe.load_lora_weights({file})\n", open(&base)),
            Form::Partial | Form::Esd => format!(
                "{}pipe.{}.load_state_dict(load_file({file}), strict=False)\n",
                open(&base),
                family.denoiser()
            ),
            Form::Delta => String::new(),
        };
        let mut text = String::new();
        if !python.is_empty() {
            let load = if matches!(self.request.form, Form::Partial | Form::Esd) {
                "from safetensors.torch import load_file\n"
            } else {
                ""
            };
            let prompt = quoted(self.concepts.first().map_or("a prompt", String::as_str));
            text += &format!(
                "```python\nimport torch\nfrom diffusers import {pipeline}\n{load}\n{python}image = pipe({prompt}).images[0]\n```\n"
            );
        }
        match self.request.form {
            Form::Lora | Form::Delta if self.model.checkpoint.family != Family::Custom => {
                text += &format!(
                    "\nComfyUI: the node `Load LoRA` at strength 1. A1111: `<lora:{stem}:1>` in the prompt.\n"
                );
            }
            Form::Esd => {
                text += "\nESD's own code: `apply_esd_checkpoint(pipe, FILE)` of `utils/esd_checkpoint.py`.\n"
            }
            Form::Delta => {
                text += "scumble loads it with `--edit`; diffusers has no reader for differences.\n"
            }
            _ => {}
        }
        text.trim().to_owned()
    }
}
