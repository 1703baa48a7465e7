// Files that were dropped on a page, those of folders included.

const entriesIn = (reader: FileSystemDirectoryReader) =>
  new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));

/** The files of an entry, one folder deep. */
async function filesOf(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) {
    const file = entry as FileSystemFileEntry;
    return [await new Promise<File>((resolve, reject) => file.file(resolve, reject))];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const files: FileSystemEntry[] = [];
  // A reader gives some hundred entries at a time, and none at the end.
  for (;;) {
    const some = await entriesIn(reader);
    if (some.length === 0) break;
    files.push(...some.filter(({ isFile }) => isFile));
  }
  return (await Promise.all(files.map(filesOf))).flat();
}

/** What was dropped. Entries have to be asked for before the event is over. */
export async function droppedFiles({ items }: DataTransfer): Promise<File[]> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter((one) => one !== null);
  return (await Promise.all(entries.map(filesOf))).flat();
}
