"""Package metadata. Every dependency has its reason beside it; pyproject.toml holds tool settings only."""

from setuptools import find_packages, setup

# dlib-bin is dlib, prebuilt: the same module and version, installed in seconds where building dlib from source takes 12
# minutes, cmake and a C++ compiler. It ships wheels for CPython 3.10 to 3.15 on the platforms below; everywhere else pip builds
# `dlib` from source.
HAS_WHEEL = (
    "python_version < '3.16' and ("
    "(sys_platform == 'linux' and platform_machine == 'x86_64')"
    " or (sys_platform == 'linux' and platform_machine == 'aarch64')"
    " or (sys_platform == 'darwin' and platform_machine == 'arm64')"
    " or (sys_platform == 'win32' and platform_machine == 'AMD64'))"
)
# A marker has no "not": this is the negation of the one above, spelled out.
NO_WHEEL = (
    "python_version >= '3.16'"
    " or (sys_platform == 'linux' and platform_machine != 'x86_64' and platform_machine != 'aarch64')"
    " or (sys_platform == 'darwin' and platform_machine != 'arm64')"
    " or (sys_platform == 'win32' and platform_machine != 'AMD64')"
    " or (sys_platform != 'linux' and sys_platform != 'darwin' and sys_platform != 'win32')"
)

setup(
    name="deepfake-grid",
    version="0.1.0",
    description="Reproducibility benchmark harness for deepfake detection, from raw videos to the optimizer x backbone table",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["benchmark*", "detectors*", "optimizers*", "preprocessing*", "results*"]),
    package_data={
        "detectors": ["cards.json"],
        "benchmark": ["grids/*.yaml", "grids/*/*.yaml"],
        "results": ["reported/*.csv", "report/templates/*", "report/static/*"],
    },
    install_requires=[
        # tensors, autograd, the base optimizers; 2.4: fp16 on a CPU, and attention that can be differentiated twice
        "torch>=2.4",
        "torchvision>=0.19",  # ResNet, ConvNeXt and ViT backbones, augmentation v2; the one of torch 2.4
        "efficientnet-pytorch>=0.7.1",  # EfficientNet-B4 as DeepfakeBench and the papers use it
        "timm>=1.0",  # every other backbone, CLIP's among them, by name: architectures, weights and their conversions are its work
        "pretrainedmodels>=0.7.4",  # Xception as DeepfakeBench and the papers use it
        "six",  # imported by a dependency of pretrainedmodels that forgets to declare it
        "numpy>=1.24",
        "pandas>=2.0",  # manifests, scores and tables
        "pyarrow>=14",  # parquet files behind pandas
        "scikit-learn>=1.3",  # AUC, AP, ROC: arithmetic that should not be ours
        "scipy>=1.10",  # tests, ranks and intervals of results and of speed; Delaunay triangles of the drawn face swap
        "pyyaml>=6.0",  # grids
        "pydantic>=2.5",  # grids, cells and records: an unknown key is an error
        "typer>=0.12",  # the command line
        "jinja2>=3.1",  # the report's pages: templates in which users' words are escaped by themselves
        "rich>=13.0",  # progress bars and tables on the terminal
        "lmdb>=1.4",  # the face store
        "av>=14.2",  # decoding with presentation times, and H.264 encoding of the mini dataset
        "opencv-python-headless>=4.8",  # the warp of the alignment, image codecs; headless: no X libraries needed
        "pillow>=10.0",  # writes lossless WebP with low effort: 20 times faster than OpenCV, whose effort cannot be set
        f"dlib-bin>=19.24; {HAS_WHEEL}",  # face detection and landmarks
        f"dlib>=19.24; {NO_WHEEL}",
        # Carries the 68-landmark predictor as a file (100 MB). Only the file is used: importing the package needs pkg_resources.
        "face_recognition_models>=0.3.0",
        "matplotlib>=3.7",  # figures at print size, PNG and PDF
        "tensorboard>=2.14",  # training curves
        "nvidia-ml-py>=12",  # the energy that a GPU's driver counts; pure Python, and does nothing without a GPU
        "filelock>=3.12",  # two processes on one store or one cell refuse politely
    ],
    extras_require={
        "ray": ["ray>=2.10"],  # `--launcher ray`: scheduling and retries over many machines, which nothing of ours should imitate
        "figures": [
            "grad-cam>=1.5",  # class activation maps: `dfgrid figures --only gradcam`
            "umap-learn>=0.5.5",  # `dfgrid figures --only umap`; brings numba, so it is not installed unasked
        ],
        "test": [
            "pytest>=7.4",
            "ray>=2.10; python_version < '3.14'",  # the cluster that loses a node; elsewhere its test is skipped
            "pytest-xdist>=3.5",  # the suite uses both cores
            "playwright>=1.40",  # drives the Chromium that is installed, if one is: the report as its readers meet it
            "ruff>=0.6",
            "mypy>=1.8",
            "types-PyYAML",
            "pre-commit>=3.5",
        ],
    },
    entry_points={"console_scripts": ["dfgrid = benchmark.cli:main"]},
)
