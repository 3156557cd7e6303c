"""Vision towers against transformers' own, and OpenAI's ResNet against its definition written with batch norms."""

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from clipcap import FEATURES, SIZE, byte_tokenizer, write_vision  # noqa: E402
from rucap.errors import ModelError  # noqa: E402
from rucap.importing.labels import label_embeddings  # noqa: E402
from rucap.importing.vision import read_vision  # noqa: E402
from rucap.model.config import EncoderConfig, Preprocessing  # noqa: E402
from rucap.network.vision_encoder import build_encoder  # noqa: E402

PHOTOS = Preprocessing(SIZE, "crop", "bicubic", (0.5,) * 3, (0.5,) * 3)
TINY = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE,
    "patch_size": 16,
}  # fmt: skip


def encoder_of(vision):
    encoder = build_encoder(vision.config)
    encoder.tower.load_state_dict(vision.tensors)
    return encoder.eval()


@pytest.mark.parametrize("patch", [8, 16])
def test_clip_gives_the_projected_embedding(tmp_path, patch):
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(**TINY | {"patch_size": patch}, projection_dim=FEATURES)
    whole = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={"vocab_size": 9, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1,
                         "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2},
            vision_config=config.to_dict(), projection_dim=FEATURES,
        )
    ).eval()  # fmt: skip
    whole.save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(tmp_path)
    encoder = encoder_of(read_vision(tmp_path))
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        found = whole.get_image_features(pixels)
        expected = found if torch.is_tensor(found) else found.pooler_output
        features = encoder.trunk(pixels)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.cells(features), expected[:, None], atol=1e-5, rtol=0)
    assert encoder.label_logits(features) is None


def test_siglip_gives_the_pooled_output(tmp_path):
    torch.manual_seed(0)
    theirs = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TINY)).eval()
    theirs.save_pretrained(tmp_path)
    size = {"height": SIZE, "width": SIZE}
    transformers.SiglipImageProcessor(size=size).save_pretrained(tmp_path)
    vision = read_vision(tmp_path)
    assert vision.config.preprocessing.resize == "squash"
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(encoder_of(vision).trunk(pixels), theirs(pixels).pooler_output, atol=1e-5, rtol=0)


def test_labels_are_scored_by_cosine():
    torch.manual_seed(0)
    settings = {**TINY, "model_type": "clip_vision_model", "projection_dim": FEATURES, "labels": 5}
    encoder = build_encoder(EncoderConfig("clip", 1, FEATURES, PHOTOS, settings)).eval()
    encoder.label_embeddings.copy_(torch.randn(5, FEATURES))
    features = torch.randn(3, FEATURES)
    expected = 100 * functional.cosine_similarity(features[:, None], encoder.label_embeddings[None], dim=-1)
    torch.testing.assert_close(encoder.label_logits(features), expected, atol=1e-3, rtol=1e-5)
    assert encoder.labels == 5
    assert not [name for name in encoder.state_dict() if not name.startswith(encoder.frozen)]


def test_labels_of_any_list_by_the_text_half(tmp_path):
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config={**TINY, "projection_dim": FEATURES}, projection_dim=FEATURES,
    )  # fmt: skip
    whole = transformers.CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(tmp_path)

    texts = ["Собака бежит</s>", "кошка</s>", "человек на диване</s>"]
    vision = read_vision(tmp_path)
    config = replace(vision.config, settings={**vision.config.settings, "labels": len(texts)})
    encoder = encoder_of(replace(vision, config=config))
    encoder.label_embeddings.copy_(label_embeddings(tmp_path, texts))
    pixels = torch.randn(2, 3, SIZE, SIZE)
    scale = 100 / whole.logit_scale.exp()
    with torch.inference_mode():
        found = encoder.label_logits(encoder.trunk(pixels))
        for column, text in enumerate(texts):
            tokens = torch.tensor([tokenizer.encode(text).ids])
            expected = whole(input_ids=tokens, pixel_values=pixels).logits_per_image[:, 0] * scale
            torch.testing.assert_close(found[:, column], expected, atol=1e-3, rtol=1e-4)
    with pytest.raises(ModelError, match="text half"):
        write_vision(tmp_path / "vision", whole=False)
        label_embeddings(tmp_path / "vision", texts)


def test_pretrained_tower_comes_from_its_source(tmp_path):
    torch.manual_seed(0)
    write_vision(tmp_path / "vision")
    vision = read_vision(tmp_path / "vision")
    config = copy.deepcopy(vision.config)
    with pytest.raises(ModelError, match="source"):
        build_encoder(config).load_pretrained()
    config.settings["source"] = str(tmp_path / "vision")
    encoder = build_encoder(config)
    encoder.load_pretrained()
    for name, tensor in encoder.tower.state_dict().items():
        torch.testing.assert_close(tensor, vision.tensors[name])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**TINY, "model_type": "bert"}, "'bert': known are"),
        ({**TINY}, "model_type None"),
        ({**TINY, "model_type": "clip_vision_model", "projection_dim": 7}, "this tower gives 1 of 7"),
        ({**TINY, "model_type": "clip_vision_model", "hidden_size": "x"}, r"config\.json: encoder\.settings"),
        ({"model_type": "clip_resnet", "layers": [1]}, "not a CLIP ResNet's"),
    ],
)
def test_settings_at_fault(settings, said):
    with pytest.raises(ModelError, match=said):
        build_encoder(EncoderConfig("clip", 1, FEATURES, PHOTOS, settings))


class OpenAIBottleneck(nn.Module):
    def __init__(self, inplanes, planes, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inplanes, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = nn.Conv2d(planes, planes * 4, 1, bias=False), nn.BatchNorm2d(planes * 4)
        self.downsample = None
        if stride > 1 or inplanes != planes * 4:
            self.downsample = nn.Sequential()
            self.downsample.add_module("-1", nn.AvgPool2d(stride))
            self.downsample.add_module("0", nn.Conv2d(inplanes, planes * 4, 1, bias=False))
            self.downsample.add_module("1", nn.BatchNorm2d(planes * 4))

    def forward(self, x):
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class OpenAIResNet(nn.Module):
    """`ModifiedResNet` and `AttentionPool2d` of OpenAI's clip/model.py."""

    def __init__(self, layers, output_dim, heads, resolution, width):
        super().__init__()
        self.heads, self.inplanes = heads, width
        self.conv1, self.bn1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv3, self.bn3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        for number, blocks in enumerate(layers):
            planes, stride = width * 2**number, 1 if number == 0 else 2
            made = [OpenAIBottleneck(self.inplanes, planes, stride)]
            self.inplanes = planes * 4
            made += [OpenAIBottleneck(self.inplanes, planes) for _ in range(1, blocks)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*made))
        embed = width * 32
        self.attnpool = nn.Module()
        self.attnpool.positional_embedding = nn.Parameter(torch.randn((resolution // 32) ** 2 + 1, embed) / embed**0.5)
        for name in ("k_proj", "q_proj", "v_proj"):
            self.attnpool.add_module(name, nn.Linear(embed, embed))
        self.attnpool.c_proj = nn.Linear(embed, output_dim)

    def forward(self, x):
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = functional.relu(bn(conv(x)))
        x = functional.avg_pool2d(x, 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pool = self.attnpool
        x = x.flatten(start_dim=2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0) + pool.positional_embedding[:, None, :]
        x, _ = functional.multi_head_attention_forward(
            query=x[:1], key=x, value=x, embed_dim_to_check=x.shape[-1], num_heads=self.heads,
            q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
            in_proj_weight=None, in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
            bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0, out_proj_weight=pool.c_proj.weight,
            out_proj_bias=pool.c_proj.bias, use_separate_proj_weight=True, training=False, need_weights=False,
        )  # fmt: skip
        return x.squeeze(0)


def test_openai_resnet(tmp_path):
    torch.manual_seed(0)
    theirs = OpenAIResNet((2, 1, 2, 1), output_dim=10, heads=4, resolution=96, width=8)
    for _ in range(3):  # gives the batch norms means and variances of their own
        theirs(torch.randn(4, 3, 96, 96))
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    theirs.eval()
    state = {f"visual.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({**state, "logit_scale": torch.ones(())}, tmp_path / "rn.pt")
    vision = read_vision(tmp_path / "rn.pt")
    assert vision.config.preprocessing.size == 96
    assert vision.config.settings["layers"] == [2, 1, 2, 1]
    assert vision.config.width == 10
    pixels = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(encoder_of(vision).trunk(pixels), theirs(pixels), atol=1e-5, rtol=1e-4)
    for gone, said in (
        ("visual.layer2.0.bn1.bias", "visual.layer2.0.bn1.bias"),
        ("visual.attnpool.q_proj.bias", "q_proj.bias"),
    ):
        torch.save({name: tensor for name, tensor in state.items() if name != gone}, tmp_path / "bad.pt")
        with pytest.raises(ModelError, match=said):
            read_vision(tmp_path / "bad.pt")
