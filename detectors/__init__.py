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
    },
    group="dfgrid.detectors",
)
