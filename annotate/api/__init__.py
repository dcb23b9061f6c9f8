"""REST for programs: one file a resource. A view parses, calls one verb, responds."""
