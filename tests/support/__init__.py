"""What tests stand on: a real gateway process, small real projects."""
