"""The table of detectors. Listing names imports nothing; `DETECTORS.build("meso4", size=64)` returns the module.

Beside the names of the table, every model of timm is one: `timm/<model>`, e.g. `timm/vit_base_patch16_clip_224.openai`.
"""

from optimizers.registry import Registry

DETECTORS = Registry(
    kind="detector",
    builtin={
        "meso4": "detectors.meso:Meso4",
        "mesoinception4": "detectors.meso:MesoInception4",
        "dfb-meso4": "detectors.dfb_meso:DfbMeso4",
        "dfb-mesoinception4": "detectors.dfb_meso:DfbMesoInception4",
        "resnet10": "detectors.resnet:ResNet10",
        "resnet18": "detectors.resnet:ResNet18",
        "resnet34": "detectors.resnet:ResNet34",
        "resnet50": "detectors.resnet:ResNet50",
        "xception": "detectors.xception:Xception",
        "efficientnet_b0": "detectors.efficientnet:EfficientNetB0",
        "efficientnet_b4": "detectors.efficientnet:EfficientNetB4",
        "dfb-efficientnet_b4": "detectors.efficientnet:DfbEfficientNetB4",
        "convnext_tiny": "detectors.convnext:ConvNeXtTiny",
        "convnext_base": "detectors.convnext:ConvNeXtBase",
        "vit_b_16": "detectors.vit:ViTB16",
        "spsl": "detectors.spsl:SPSL",
        "dfb-spsl": "detectors.spsl:DfbSPSL",
        "srm": "detectors.srm:SRM",
        "dfb-srm": "detectors.srm:DfbSRM",
        "core": "detectors.core:CORE",
        "dfb-core": "detectors.core:DfbCORE",
        "recce": "detectors.recce:RECCE",
        "dfb-recce": "detectors.recce:DfbRECCE",
        "ucf": "detectors.ucf:UCF",
        "f3net": "detectors.f3net:F3Net",
        "dfb-f3net": "detectors.f3net:DfbF3Net",
    },
    group="dfgrid.detectors",
    families={"timm/": "detectors.timm:family"},
)
