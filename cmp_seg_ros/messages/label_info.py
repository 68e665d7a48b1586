"""Label spaces as vision_msgs/LabelInfo; nothing here imports ROS."""

from typing import Any

from cmp_seg_ros.label_space import LabelSpace


def encode(space: LabelSpace, threshold: float, header: Any, label_info: type, vision_class: type) -> Any:
    """A LabelInfo: the name of every id; 255, the largest that labels may have, is unlabelled as vision_msgs has it.

    Args:
        threshold: least confidence of a label.
        label_info, vision_class: the classes of vision_msgs.msg or of a rosbags type store.
    """
    classes = [vision_class(class_id=c.id, class_name=c.name) for c in space.classes]
    return label_info(header=header, class_map=classes, threshold=float(threshold))
