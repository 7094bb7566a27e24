"""Tables: printed as markdown, written beside each other as markdown and JSON."""
import json
import os
import platform


def number(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown(rows):
    """`rows`: dictionaries with the same keys in the same order."""
    titles = list(rows[0])
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " --: |" * (len(titles) - 1)]
    lines += ["| " + " | ".join(number(row.get(title)) for title in titles) + " |" for row in rows]
    return "\n".join(lines)


class Report:
    def __init__(self, settings, subject):
        self.settings, self.subject, self.tables = settings, subject, []
        self.facts = {"subject": subject, "machine": platform.machine(), "kernel": platform.release(),
                      "threads": settings.threads, "rounds": settings.rounds}

    def table(self, title, rows, notes=""):
        """Adds a table and prints it."""
        if rows:
            self.tables.append({"title": title, "notes": notes, "rows": rows})
            print("\n" + self.text(self.tables[-1]), flush=True)
            self.write()

    @staticmethod
    def text(table):
        notes = f"\n\n{table['notes']}" if table["notes"] else ""
        return f"### {table['title']}\n\n{markdown(table['rows'])}{notes}"

    def write(self):
        """What there is so far: a run that is stopped leaves its finished tables."""
        if not self.settings.out:
            return
        os.makedirs(self.settings.out, exist_ok=True)
        path = os.path.join(self.settings.out, self.subject)
        with open(path + ".json", "w") as out:
            json.dump({**self.facts, "tables": self.tables}, out, indent=1)
        with open(path + ".md", "w") as out:
            facts = ", ".join(f"{key} {value}" for key, value in self.facts.items() if key != "subject")
            out.write(f"# {self.subject}\n\n{facts}\n\n" + "\n\n".join(map(self.text, self.tables)) + "\n")
