"""LoRA by hand against peft, and the merged layer against both."""

import torch

from alignlab.chapters.a_real_model.lora import lora_output, merged_weight


def test_output_is_that_of_peft_and_the_merged_layer_gives_the_same():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5, bias=False)).double()
    config = LoraConfig(
        r=3, lora_alpha=7, target_modules=["0"], init_lora_weights=False
    )
    layer = get_peft_model(model, config).base_model.model[0].double()
    parts = (
        layer.base_layer.weight,
        layer.lora_A["default"].weight,
        layer.lora_B["default"].weight,
        7.0,
    )
    x = torch.randn(4, 2, 6, dtype=torch.float64)
    theirs = layer(x)
    assert (theirs - x @ parts[0].T).abs().max() > 0.1  # the adapter counts
    torch.testing.assert_close(lora_output(x, *parts), theirs)
    torch.testing.assert_close(x @ merged_weight(*parts).T, theirs)
