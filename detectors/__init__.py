"""The table of detectors. Listing names imports nothing; `DETECTORS.build("meso4", size=64)` returns the module."""

from optimizers.registry import Registry

DETECTORS = Registry(
    kind="detector",
    builtin={
        "meso4": "detectors.meso:Meso4",
        "resnet10": "detectors.resnet:ResNet10",
        "resnet18": "detectors.resnet:ResNet18",
        "resnet34": "detectors.resnet:ResNet34",
        "resnet50": "detectors.resnet:ResNet50",
        "xception": "detectors.xception:Xception",
        "efficientnet_b4": "detectors.efficientnet:EfficientNetB4",
        "convnext_base": "detectors.convnext:ConvNeXtBase",
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
)
