"""Everything about the model: networks, detection, open set, engines, inference, training and publishing."""
