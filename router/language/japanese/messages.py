JAPANESE: dict[str, tuple[str, str]] = {}
