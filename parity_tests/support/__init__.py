"""What several tests share: networks at hand, programs that are built once, faults that are planted."""
