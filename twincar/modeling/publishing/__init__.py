"""Publishing: model folders from training runs, their optional parts, export, and upload to the Hub."""
