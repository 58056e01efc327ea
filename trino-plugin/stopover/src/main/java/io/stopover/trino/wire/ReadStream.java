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

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.util.zip.CRC32C;

import static io.stopover.trino.wire.Counts.count;
import static java.lang.Integer.toUnsignedLong;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

/**
 * Decodes a response of {@code /v1/read}: block records, page frames, and an end or error record.
 * Verifies every checksum and count of the response, and delivers a page only after its checksum
 * matched. The caller must check that the pages are exactly those of the handle.
 */
public final class ReadStream
{
    static final int BLOCK = 0xFFFF_FFF0;
    static final int END = 0xFFFF_FFF1;
    static final int ERROR = 0xFFFF_FFF2;
    static final int RECORD_SIZE = 32;
    private static final int MAX_ERROR_SIZE = 1024 * 1024;

    public interface Visitor
    {
        /** The following pages belong to this partition and attempt. */
        void block(int partition, int task, int attempt)
                throws IOException;

        /** Called before a page is allocated; may block. */
        void reserve(int bytes)
                throws IOException;

        /** A complete, verified page, for which {@code reserve} was called. */
        void page(byte[] page)
                throws IOException;

        /** Undoes {@code reserve}: the page failed and will not be delivered. */
        void release(int bytes);
    }

    /** Converts the problem+json of an error record to an exception. */
    public interface ErrorReader
    {
        IOException read(byte[] problem);
    }

    private final InputStream in;
    private final Visitor visitor;
    private final ErrorReader errors;
    private final int maxPageSize;
    private final byte[] scratch = new byte[RECORD_SIZE];
    private final ByteBuffer fields = ByteBuffer.wrap(scratch).order(LITTLE_ENDIAN);
    private long blocks;
    private long pages;
    private long bytes;

    public ReadStream(InputStream in, int maxPageSize, Visitor visitor, ErrorReader errors)
    {
        this.in = in;
        this.maxPageSize = maxPageSize;
        this.visitor = visitor;
        this.errors = errors;
    }

    /** Returns after an end record whose counts match. */
    public void readFully()
            throws IOException
    {
        while (true) {
            fill(0, 8);
            int type = fields.getInt(0);
            switch (type) {
                case BLOCK -> readBlock();
                case END -> {
                    readEnd();
                    return;
                }
                case ERROR -> throw readError();
                default -> throw new MalformedStreamException(
                        "unknown record type 0x%08x after %s"
                                .formatted(type, count(blocks, "block")));
            }
        }
    }

    private void readBlock()
            throws IOException
    {
        fill(8, RECORD_SIZE - 8);
        verifyRecord("block");
        int partition = fields.getInt(4);
        long count = toUnsignedLong(fields.getInt(16));
        long frames = fields.getLong(20);
        visitor.block(partition, fields.getInt(8), fields.getInt(12));
        long seen = 0;
        for (long page = 0; page < count; page++) {
            seen += PageFrame.HEADER_SIZE + readPage(partition);
        }
        if (seen != frames) {
            throw new MalformedStreamException(
                    "block record declares %s frame bytes, received %s".formatted(frames, seen));
        }
        blocks++;
    }

    private int readPage(int partition)
            throws IOException
    {
        fill(0, PageFrame.HEADER_SIZE);
        int length = fields.getInt(4);
        int crc = fields.getInt(8);
        if (fields.getInt(0) != partition) {
            throw new MalformedStreamException("page of partition %s in a block of partition %s"
                    .formatted(Integer.toUnsignedString(fields.getInt(0)), partition));
        }
        if (length < 1 || length > maxPageSize) {
            throw new MalformedStreamException(
                    "page of %s exceeds stopover.max-page-size (%s): use the writers' value"
                            .formatted(count(toUnsignedLong(length), "byte"), maxPageSize));
        }
        visitor.reserve(length);
        byte[] page;
        try {
            page = new byte[length];
            readFully(page, 0, length);
            if (PageFrame.crc(partition, page, 0, length) != crc) {
                throw new MalformedStreamException(
                        "checksum mismatch in page %s of this response".formatted(pages));
            }
        }
        catch (IOException | RuntimeException e) {
            visitor.release(length);
            throw e;
        }
        pages++;
        bytes += length;
        visitor.page(page);
        return length;
    }

    private void readEnd()
            throws IOException
    {
        fill(8, RECORD_SIZE - 8);
        verifyRecord("end");
        if (toUnsignedLong(fields.getInt(4)) != blocks || fields.getLong(8) != pages
                || fields.getLong(16) != bytes) {
            throw new MalformedStreamException(
                    "end record declares %s, %s, %s; received %s, %s, %s"
                            .formatted(
                            count(toUnsignedLong(fields.getInt(4)), "block"),
                            count(fields.getLong(8), "page"),
                            count(fields.getLong(16), "byte"),
                            blocks,
                            pages,
                            bytes));
        }
        if (in.read() != -1) {
            throw new MalformedStreamException("data after the end record");
        }
    }

    private IOException readError()
            throws IOException
    {
        int length = fields.getInt(4);
        if (length < 0 || length > MAX_ERROR_SIZE) {
            return new MalformedStreamException(
                    "error record of %s exceeds the limit"
                            .formatted(count(toUnsignedLong(length), "byte")));
        }
        byte[] problem = new byte[length];
        readFully(problem, 0, length);
        return errors.read(problem);
    }

    private void verifyRecord(String type)
            throws MalformedStreamException
    {
        CRC32C crc = new CRC32C();
        crc.update(scratch, 0, RECORD_SIZE - 4);
        if ((int) crc.getValue() != fields.getInt(RECORD_SIZE - 4)) {
            throw new MalformedStreamException(
                    "checksum mismatch in a %s record after %s of this response"
                            .formatted(type, count(pages, "page")));
        }
    }

    private void fill(int offset, int length)
            throws IOException
    {
        readFully(scratch, offset, length);
    }

    private void readFully(byte[] target, int offset, int length)
            throws IOException
    {
        int count = in.readNBytes(target, offset, length);
        if (count < length) {
            throw new EOFException(
                    "response truncated after %s and %s"
                            .formatted(count(blocks, "block"), count(pages, "page")));
        }
    }
}
