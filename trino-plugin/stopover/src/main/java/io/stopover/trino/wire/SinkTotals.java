/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.wire;

import java.nio.ByteBuffer;
import java.util.zip.CRC32C;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

/**
 * Totals of the pages an attempt has sent, as {@code finish} declares them: counts, and the CRC-32C
 * over the checksums of all pages in send order. Not thread-safe.
 */
public final class SinkTotals
{
    private final CRC32C checksum = new CRC32C();
    private long batches;
    private long pages;
    private long bytes;

    public void add(PageBatch batch)
    {
        ByteBuffer crcs = ByteBuffer.allocate(batch.pages().size() * Integer.BYTES)
                .order(LITTLE_ENDIAN);
        batch.pages().forEach(page -> crcs.putInt(page.crc()));
        checksum.update(crcs.flip());
        batches++;
        pages += batch.pages().size();
        bytes += batch.pageBytes();
    }

    public long batches()
    {
        return batches;
    }

    public long pages()
    {
        return pages;
    }

    public long bytes()
    {
        return bytes;
    }

    public long checksum()
    {
        return checksum.getValue();
    }
}
